//! What the bytes of a connection go through, below its frames: TCP as it is. TLS is to stand in here: what is read comes
//! out decrypted, what is sent goes in as it is, and what the peer has taken still counts bytes of the socket.

use std::io;

use bytes::{Bytes, BytesMut};
use corelog_io::{Detached, Part, Stream};

/// Clones share the connection; one reader and one writer at a time.
#[derive(Clone)]
pub struct Transport {
    stream: Stream,
}

impl Transport {
    pub fn plain(stream: Stream) -> Transport {
        Transport { stream }
    }

    /// Takes the connection off this core, if nothing else on it has it or is under way: see [`Stream::detach`].
    pub fn detach(self) -> Option<Detached> {
        self.stream.detach().ok()
    }

    /// This core has it from now on.
    pub fn attach(detached: Detached) -> Transport {
        Transport::plain(detached.attach())
    }

    /// As [`Stream::read`].
    pub async fn read(&self, buffer: &mut BytesMut, max: usize) -> io::Result<usize> {
        self.stream.read(buffer, max).await
    }

    /// As [`Stream::send`].
    pub async fn send(&self, frame: Vec<Bytes>) -> io::Result<()> {
        self.stream.send(frame.into_iter().map(Part::Bytes).collect()).await
    }

    /// Bytes of the socket that the peer has taken so far.
    pub fn taken(&self) -> u64 {
        self.stream.taken()
    }

    pub fn shutdown(&self) {
        self.stream.shutdown();
    }
}
