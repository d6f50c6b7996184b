//! Opens sockets by connect() and accept() in functions of known names: `open both PORT`.

use std::net::{SocketAddr, TcpListener, TcpStream};

mod net {
    use super::*;

    pub struct Upstream(pub SocketAddr);

    impl Upstream {
        #[inline(never)]
        pub fn open(&self) -> TcpStream {
            let stream = TcpStream::connect(self.0).expect("somebody listens");
            std::hint::black_box(&stream);
            stream
        }
    }

    #[inline(never)]
    pub fn take_client(listener: &TcpListener) -> TcpStream {
        let (stream, _) = listener.accept().expect("somebody connected");
        std::hint::black_box(&stream);
        stream
    }
}

fn main() {
    let port: u16 = std::env::args().nth(2).expect("a port").parse().expect("a number");
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = TcpListener::bind(at).expect("the port is free");
    let client = net::Upstream(at).open();
    let server = net::take_client(&listener);
    drop(client);
    drop(server);
    // Until standard input ends.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("a pipe");
}
