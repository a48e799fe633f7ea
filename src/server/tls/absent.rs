//! What stands for TLS in a program that is built without it.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::Pause;
use crate::error::{Error, Result};

/// There is none.
#[derive(Debug)]
pub(in crate::server) enum Identity {}

impl Identity {
    pub(super) fn load(_: &Path, _: &Path) -> Result<Self> {
        Err(Error::unsupported("this program was built without TLS")
            .with_hint("Build it with --features ssl, or leave --tls-cert and --tls-key out."))
    }

    pub(in crate::server) fn channel_binding(&self) -> Option<Vec<u8>> {
        match *self {}
    }

    pub(in crate::server) async fn accept(&self, _: TcpStream) -> std::io::Result<TcpStream> {
        match *self {}
    }

    pub(in crate::server) fn session(&self, _: Arc<TcpStream>) -> std::io::Result<Session> {
        match *self {}
    }
}

/// There is none.
pub(in crate::server) enum Session {}

impl Session {
    pub(in crate::server) fn accept(&mut self) -> std::result::Result<(), Pause> {
        match *self {}
    }

    pub(in crate::server) fn read(&mut self, _: &mut [u8]) -> std::result::Result<usize, Pause> {
        match *self {}
    }

    pub(in crate::server) fn write(&mut self, _: &[u8]) -> std::result::Result<usize, Pause> {
        match *self {}
    }
}
