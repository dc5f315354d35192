//! Sockets to a Fluvio cluster: without the delays that its client leaves in, and with the TLS of everything else here.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use fluvio_future::net::{BoxReadConnection, BoxWriteConnection, ConnectionFd, DomainConnector, TcpDomainConnector};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;

use super::cluster::TlsOptions;

/// A peer that is gone without a word is noticed after about a minute, also by who only listens.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Makes sockets for the client, in a runtime of ours: the client asks for them from threads of its own.
#[derive(Clone)]
pub(super) struct Sockets {
    runtime: Handle,
    tls: Option<TlsConnector>,
    domain: String,
}

impl Sockets {
    /// Reads the certificates.
    ///
    /// # Errors
    /// In words, when they can't be used.
    pub(super) fn new(runtime: Handle, tls: Option<&TlsOptions>) -> Result<Self, String> {
        Ok(Self {
            runtime,
            domain: tls.map_or_else(|| "localhost".to_owned(), |tls| tls.domain.clone()),
            tls: tls.map(connector).transpose()?,
        })
    }
}

/// TLS as it is set: whom we trust, and who we are. The cluster knows us by our certificate.
fn connector(options: &TlsOptions) -> Result<TlsConnector, String> {
    let of = |path: &std::path::Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let read = |path: &std::path::Path| -> Result<Vec<CertificateDer<'static>>, String> {
        let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        let found: Vec<_> = found.map_err(|error| of(path, &error))?;
        match found.is_empty() {
            true => Err(of(path, &"there is no certificate in it")),
            false => Ok(found),
        }
    };
    let mut trusted = RootCertStore::empty();
    for certificate in read(&options.ca_cert)? {
        trusted.add(certificate).map_err(|error| of(&options.ca_cert, &error))?;
    }
    let config = ClientConfig::builder().with_root_certificates(trusted);
    let config = match &options.identity {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| of(key, &error))?;
            config
                .with_client_auth_cert(read(cert)?, secret)
                .map_err(|error| of(cert, &error))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

#[async_trait]
impl TcpDomainConnector for Sockets {
    async fn connect(&self, address: &str) -> io::Result<(BoxWriteConnection, BoxReadConnection, ConnectionFd)> {
        let (own, address) = (self.clone(), address.to_owned());
        let connecting = async move {
            let socket = Quick(TcpStream::connect(address).await?);
            socket.0.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
            SockRef::from(&socket.0).set_tcp_keepalive(&keepalive)?;
            let fd = socket.0.as_raw_fd();
            match own.tls {
                None => Ok(split(socket, fd)),
                Some(tls) => {
                    let name = ServerName::try_from(own.domain).map_err(io::Error::other)?;
                    Ok(split(tls.connect(name, socket).await?, fd))
                }
            }
        };
        self.runtime.spawn(connecting).await.map_err(io::Error::other)?
    }

    fn new_domain(&self, domain: String) -> DomainConnector {
        Box::new(Self { domain, ..self.clone() })
    }

    fn domain(&self) -> &str {
        &self.domain
    }

    fn clone_box(&self) -> DomainConnector {
        Box::new(self.clone())
    }
}

fn split<T>(socket: T, fd: ConnectionFd) -> (BoxWriteConnection, BoxReadConnection, ConnectionFd)
where
    T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
{
    let (read, write) = tokio::io::split(socket);
    (Box::new(Foreign(write)), Box::new(Foreign(read)), fd)
}

/// A socket that acknowledges at once what it reads. The kernel forgets that it should, so it is told at every read:
/// otherwise the cluster waits up to 40 ms for an acknowledgement before it sends on.
struct Quick(TcpStream);

impl AsyncRead for Quick {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        #[cfg(target_os = "linux")]
        // Without it everything works, only later.
        let _ = SockRef::from(&self.0).set_tcp_quickack(true);
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Quick {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Our kind of socket as the client's kind.
struct Foreign<T>(T);

impl<T: AsyncRead + Unpin> futures_util::io::AsyncRead for Foreign<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut into))?;
        Poll::Ready(Ok(into.filled().len()))
    }
}

impl<T: AsyncWrite + Unpin> futures_util::io::AsyncWrite for Foreign<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
