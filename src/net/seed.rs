//! Whom a newcomer trusts: any node of the cluster, whatever its name.
//!
//! A client begins with addresses and knows no names. It may take any node's word for the layout, but only a node's: the
//! certificate must be of the cluster's authority, valid, made for a server, and name a node of this very cluster. All later
//! links ask for a node by its name.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::tls::{PeerIdentity, Role, bearer_name, bearer_of};

/// Judges the certificate by the name that it tells itself; everything else is left to webpki.
#[derive(Debug)]
pub(super) struct AnyNode {
    pub inner: Arc<WebPkiServerVerifier>,
    pub cluster: Arc<str>,
}

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let foreign = || Error::InvalidCertificate(CertificateError::NotValidForName);
        let name = match bearer_of(end_entity, "of the peer") {
            Ok((cluster, PeerIdentity::Node(name))) if cluster == *self.cluster => name,
            _ => return Err(foreign()),
        };
        let own_name = ServerName::try_from(bearer_name(&name, Role::Node, &self.cluster)).map_err(|_| foreign())?;
        self.inner.verify_server_cert(end_entity, intermediates, &own_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
