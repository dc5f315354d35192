//! Device access is what a client of the embedded broker may do, on top of who may connect.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use mqtt5::broker::auth::{AuthProvider, AuthResult, EnhancedAuthResult};
use mqtt5::packet::connect::ConnectPacket;

type AuthFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Asks another provider who somebody is, and keeps clients from publishing where only Usher does: a device that
/// could write facts or alerts could make staff believe anything.
pub(crate) struct DeviceAccess {
    identity: Arc<dyn AuthProvider>,
    reserved: String,
}

impl DeviceAccess {
    pub(crate) fn new(identity: Arc<dyn AuthProvider>, reserved: String) -> Self {
        Self { identity, reserved }
    }
}

impl AuthProvider for DeviceAccess {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        client_addr: SocketAddr,
    ) -> AuthFuture<'a, mqtt5::Result<AuthResult>> {
        self.identity.authenticate(connect, client_addr)
    }

    fn authorize_publish<'a>(
        &'a self,
        client_id: &str,
        user_id: Option<&'a str>,
        topic: &'a str,
    ) -> AuthFuture<'a, bool> {
        if topic.starts_with(&self.reserved) || topic.starts_with('$') {
            return Box::pin(async { false });
        }
        self.identity.authorize_publish(client_id, user_id, topic)
    }

    fn authorize_subscribe<'a>(
        &'a self,
        client_id: &str,
        user_id: Option<&'a str>,
        topic_filter: &'a str,
    ) -> AuthFuture<'a, bool> {
        self.identity.authorize_subscribe(client_id, user_id, topic_filter)
    }

    fn supports_enhanced_auth(&self) -> bool {
        self.identity.supports_enhanced_auth()
    }

    fn authenticate_enhanced<'a>(
        &'a self,
        auth_method: &'a str,
        auth_data: Option<&'a [u8]>,
        client_id: &'a str,
    ) -> AuthFuture<'a, mqtt5::Result<EnhancedAuthResult>> {
        self.identity.authenticate_enhanced(auth_method, auth_data, client_id)
    }

    fn reauthenticate<'a>(
        &'a self,
        auth_method: &'a str,
        auth_data: Option<&'a [u8]>,
        client_id: &'a str,
        user_id: Option<&'a str>,
    ) -> AuthFuture<'a, mqtt5::Result<EnhancedAuthResult>> {
        self.identity.reauthenticate(auth_method, auth_data, client_id, user_id)
    }

    fn cleanup_session<'a>(&'a self, user_id: &'a str) -> AuthFuture<'a, ()> {
        self.identity.cleanup_session(user_id)
    }
}
