//! A server that never closes what it accepts, and its clients, which do, one after the other. Stays until its standard input is closed.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

#[inline(never)]
fn take_and_forget(listener: &TcpListener) {
    let (stream, _) = listener.accept().expect("a client");
    std::mem::forget(stream);
}

fn main() {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("a port");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a listener");
    for _ in 0..30 {
        let client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        take_and_forget(&listener);
        drop(client);
        std::thread::sleep(std::time::Duration::from_millis(150));
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
