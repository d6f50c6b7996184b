//! Real servers for the tracer to watch.

use std::path::Path;

use super::{
    netns::Netns,
    process::{self, Running},
    wait_until,
};

/// nginx in `ns` with one worker that serves `/` at `port` to the end of the stream, no Content-Length. It closes when the client has:
/// else the kernel forgets the connection before, where the client is slow, and nothing tells of its TIME_WAIT.
pub fn nginx(ns: &Netns, dir: &Path, port: u16) -> Running {
    let at = dir.display();
    std::fs::write(dir.join("index.html"), "0123456789".repeat(100)).expect("a temporary directory");
    std::fs::write(
        dir.join("nginx.conf"),
        format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log; user root;
             events {{ worker_connections 64; }}
             http {{
                 access_log off; root {at}; keepalive_timeout 0;
                 lingering_close always; lingering_time 60s; lingering_timeout 60s;
                 gzip on; gzip_http_version 1.0; gzip_min_length 1;
                 client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
                 uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
                 types {{ text/html html; }}
                 server {{ listen 127.0.0.1:{port}; }}
             }}"
        ),
    )
    .expect("a temporary directory");
    let mut command = ns.command("nginx");
    let nginx = process::spawn(command.arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("error.log")));
    wait_until("nginx to listen", || !ns.rows().is_empty() && nginx.children().len() == 1);
    nginx
}
