//! Who may speak: one certificate authority per cluster, one certificate per node and per client, both sides always shown.
//!
//! A certificate names its bearer in exactly one DNS name under `.tidewater`:
//!
//! ```text
//!   n1.node.shop.tidewater         ops.client.shop.tidewater
//!   ^^ name  ^^^^ cluster          ^^^ name   ^^^^ cluster
//!      ^^^^ role                       ^^^^^^ role
//! ```
//!
//! so that the ordinary name check of webpki already refuses the wrong node, a client posing as a node, and another cluster's node
//! even where two clusters were made from one authority. Other host names and addresses may stand beside it for the RESP door.
//!
//! Keys are ECDSA P-256. Ed25519 would do for QUIC, but the same certificate serves TLS on the RESP door, and there are Redis clients
//! whose TLS stack knows no Ed25519; links are few and long-lived, so what a signature costs does not matter.
//!
//! Sessions are never resumed: a handshake is rare, and each one is to prove both certificates anew.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, RootCertStore};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::seed::AnyNode;

/// What a link speaks: agreed in the handshake, so that versions that cannot talk never exchange a byte.
pub const ALPN: &[u8] = b"tidewater/1";

const DOMAIN: &str = "tidewater";
const SECONDS_A_DAY: u64 = 86_400;
/// A certificate is good from an hour before it was made: machines disagree about the time.
const BACKDATE_SECONDS: u64 = 3_600;
/// A hundred years: longer is a typing mistake, and bounded dates cannot overflow.
const VALID_DAYS_MAX: u32 = 36_525;

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Node,
    Client,
}

impl Role {
    fn label(self) -> &'static str {
        match self {
            Role::Node => "node",
            Role::Client => "client",
        }
    }
}

/// Who is at the other end of a link, as its certificate says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PeerIdentity {
    Node(String),
    Client(String),
}

impl PeerIdentity {
    pub fn name(&self) -> &str {
        match self {
            PeerIdentity::Node(name) | PeerIdentity::Client(name) => name,
        }
    }

    pub fn role(&self) -> Role {
        match self {
            PeerIdentity::Node(_) => Role::Node,
            PeerIdentity::Client(_) => Role::Client,
        }
    }
}

impl std::fmt::Display for PeerIdentity {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(out, "{} {}", self.role().label(), self.name())
    }
}

/// What is wrong with certificates and keys. Nothing was changed or opened.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {what} {path}: {source}")]
    Unreadable { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("{path} exists already and is not overwritten: remove it first if it is not needed any more")]
    Exists { path: PathBuf },
    #[error("{origin} holds no {what} in PEM form: {why}")]
    NotPem { what: &'static str, origin: String, why: String },
    #[error("{origin} is no usable certificate: {why}")]
    BadCertificate { origin: String, why: String },
    #[error("{origin} is no certificate of a Tidewater cluster's authority: it {why}")]
    NotAuthority { origin: String, why: &'static str },
    #[error(
        "the certificate {origin} names no single bearer: want one <name>.<node|client>.<cluster>.{DOMAIN}, found {found:?}"
    )]
    NoBearer { origin: String, found: Vec<String> },
    #[error("the key {key} does not belong to the certificate {certificate}")]
    KeyMismatch { key: String, certificate: String },
    #[error("the key {origin} cannot be used: {why}")]
    BadKey { origin: String, why: String },
    #[error("the certificate {origin} expired {days} days ago: issue a new one (tidewater tls issue)")]
    Expired { origin: String, days: i64 },
    #[error("the certificate {origin} is not valid yet: is this machine's clock right?")]
    NotValidYet { origin: String },
    #[error("the certificate {origin} was not issued by the authority {authority}: {why}")]
    ForeignAuthority { origin: String, authority: String, why: String },
    #[error("{name:?} cannot name a {what}: 1 to 63 letters, digits, '-' and '_' (the last two not at the ends)")]
    BadName { what: &'static str, name: String },
    #[error("{host:?} cannot stand in a certificate: a host name outside .{DOMAIN}, or an IP address, is wanted")]
    BadHost { host: String },
    #[error("a validity of {days} days: 1 to {VALID_DAYS_MAX} are allowed")]
    BadValidity { days: u32 },
    #[error("cannot make the certificate: {why}")]
    Making { why: String },
    #[error("cannot set up TLS: {why}")]
    Setup { why: String },
}

/// A certificate and its private key, both in PEM form.
#[derive(Clone)]
pub struct IssuedCertificate {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// The authority of one cluster: whoever holds its key can make nodes and clients.
pub struct ClusterAuthority {
    cluster: String,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl ClusterAuthority {
    /// Makes a new authority. `cluster` becomes part of every certificate it issues. `wall_ms`: now.
    pub fn create(cluster: &str, valid_days: u32, wall_ms: u64) -> Result<Self, TlsError> {
        check_name("cluster", cluster)?;
        let key = new_key()?;
        let mut params = dated(valid_days, wall_ms)?;
        params.distinguished_name = subject(&format!("Tidewater authority of {cluster}"), cluster);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key).map_err(making)?.pem();
        Ok(Self { cluster: cluster.to_owned(), certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// The authority whose PEM texts these are.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let (certificate_origin, key_origin) = ("the given text".to_owned(), "the given text".to_owned());
        Self::parse(certificate_pem, key_pem, certificate_origin, key_origin)
    }

    /// The authority whose PEM files these are.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let certificate_pem = read("the authority's certificate", certificate)?;
        let key_pem = read("the authority's key", key)?;
        Self::parse(&certificate_pem, &key_pem, certificate.display().to_string(), key.display().to_string())
    }

    fn parse(certificate_pem: &str, key_pem: &str, certificate: String, key: String) -> Result<Self, TlsError> {
        let chain = certificates(certificate_pem, &certificate)?;
        let cluster = cluster_of_authority(&chain[0], &certificate)?;
        certified(chain, private_key(key_pem, &key)?, &certificate, &key)?;
        let unusable = |error: rcgen::Error| TlsError::BadKey { origin: key.clone(), why: error.to_string() };
        let key_pair = KeyPair::from_pem(key_pem).map_err(unusable)?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key_pair)
            .map_err(|error| TlsError::BadCertificate { origin: certificate, why: error.to_string() })?;
        Ok(Self { cluster, certificate_pem: certificate_pem.to_owned(), issuer })
    }

    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// What every node and client needs beside its own certificate; no secret.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The secret.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a certificate for `name`. `hosts`: further host names and IP addresses that Redis clients may check on the RESP door.
    pub fn issue(
        &self,
        name: &str,
        role: Role,
        hosts: &[String],
        valid_days: u32,
        wall_ms: u64,
    ) -> Result<IssuedCertificate, TlsError> {
        check_name(role.label(), name)?;
        let key = new_key()?;
        let mut params = dated(valid_days, wall_ms)?;
        params.distinguished_name = subject(name, &self.cluster);
        params.subject_alt_names = vec![dns_name(&bearer_name(name, role, &self.cluster))?];
        for host in hosts {
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => further_host(host)?,
            });
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == Role::Node {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(making)?;
        Ok(IssuedCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// Who this process is: its certificate, the key to it, and the authority it trusts.
#[derive(Clone)]
pub struct Identity {
    cluster: Arc<str>,
    bearer: PeerIdentity,
    certified: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    reset_key: Arc<::ring::hmac::Key>,
    not_after_s: i64,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(out, "Identity({} of {})", self.bearer, self.cluster)
    }
}

impl Identity {
    /// From PEM texts. Checks all that can be known now: the key fits, the authority issued it, it is valid at `wall_ms`.
    pub fn from_pem(authority_pem: &str, certificate_pem: &str, key_pem: &str, wall_ms: u64) -> Result<Self, TlsError> {
        let origins = Origins {
            authority: "the given authority".to_owned(),
            certificate: "the given certificate".to_owned(),
            key: "the given key".to_owned(),
        };
        Self::parse(authority_pem, certificate_pem, key_pem, origins, wall_ms)
    }

    /// From PEM files; see [`Identity::from_pem`].
    pub fn load(authority: &Path, certificate: &Path, key: &Path, wall_ms: u64) -> Result<Self, TlsError> {
        let authority_pem = read("the authority's certificate", authority)?;
        let certificate_pem = read("the certificate", certificate)?;
        let key_pem = read("the key", key)?;
        let origins = Origins {
            authority: authority.display().to_string(),
            certificate: certificate.display().to_string(),
            key: key.display().to_string(),
        };
        Self::parse(&authority_pem, &certificate_pem, &key_pem, origins, wall_ms)
    }

    fn parse(
        authority_pem: &str,
        certificate_pem: &str,
        key_pem: &str,
        origins: Origins,
        wall_ms: u64,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let mut roots = RootCertStore::empty();
        for root in certificates(authority_pem, &origins.authority)? {
            cluster_of_authority(&root, &origins.authority)?;
            let refused = |error: rustls::Error| bad_certificate(&origins.authority, error);
            roots.add(root).map_err(refused)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(certificate_pem, &origins.certificate)?;
        let key = private_key(key_pem, &origins.key)?;
        let reset_key = Arc::new(reset_key(&key));
        let certified = certified(chain, key, &origins.certificate, &origins.key)?;
        let end_entity = &certified.cert[0];
        let (cluster, bearer) = bearer_of(end_entity, &origins.certificate)?;
        let not_after_s = parsed(end_entity, &origins.certificate)?.validity().not_after.timestamp();
        check_issued(&certified, &roots, &provider, not_after_s, &origins, wall_ms)?;
        let certified = Arc::new(certified);
        Ok(Self { cluster: cluster.into(), bearer, certified, roots, provider, reset_key, not_after_s })
    }

    /// Whom this certificate names.
    pub fn bearer(&self) -> &PeerIdentity {
        &self.bearer
    }

    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Whole days from `wall_ms` until the certificate expires; negative when it has.
    pub fn days_left(&self, wall_ms: u64) -> i64 {
        (self.not_after_s - (wall_ms / 1000) as i64).div_euclid(SECONDS_A_DAY as i64)
    }

    /// The name to ask for when dialling the node called `name`.
    pub(super) fn server_name(&self, name: &str) -> Result<String, TlsError> {
        check_name("node", name)?;
        Ok(bearer_name(name, Role::Node, &self.cluster))
    }

    /// Whom the certificate that a peer has proved names. The handshake has checked its issuer; here its cluster is.
    pub(super) fn identify(&self, certificate: &CertificateDer<'_>) -> Result<PeerIdentity, TlsError> {
        let origin = "of the peer";
        let (cluster, bearer) = bearer_of(certificate, origin)?;
        if cluster != *self.cluster {
            let why = format!("it is of the cluster {cluster}, this one is {}", self.cluster);
            return Err(TlsError::BadCertificate { origin: "the certificate of the peer".to_owned(), why });
        }
        Ok(bearer)
    }

    /// Signs "I know nothing of this link". A node that has been restarted is believed only with the key it had before, so that key is
    /// derived from the private key.
    pub(super) fn reset_key(&self) -> Arc<::ring::hmac::Key> {
        self.reset_key.clone()
    }

    /// Marks connection ids as this node's. No secret, but the same after a restart.
    pub(super) fn connection_id_key(&self) -> u64 {
        let mark = ::ring::hmac::sign(&self.reset_key, b"connection ids");
        mark.as_ref().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte))
    }

    pub(super) fn quic_server(&self) -> Result<QuicServerConfig, TlsError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .build()
            .map_err(setup)?;
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        QuicServerConfig::try_from(config).map_err(setup)
    }

    /// For dialling one node by its name.
    pub(super) fn quic_client(&self) -> Result<QuicClientConfig, TlsError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .build()
            .map_err(setup)?;
        self.quic_client_with(verifier)
    }

    /// For dialling an address at which some node of this cluster must be, whichever it is.
    pub(super) fn quic_client_of_any_node(&self) -> Result<QuicClientConfig, TlsError> {
        let inner = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .build()
            .map_err(setup)?;
        self.quic_client_with(Arc::new(AnyNode { inner, cluster: self.cluster.clone() }))
    }

    fn quic_client_with(&self, verifier: Arc<dyn ServerCertVerifier>) -> Result<QuicClientConfig, TlsError> {
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        QuicClientConfig::try_from(config).map_err(setup)
    }
}

/// Shakes hands with Redis clients that speak TLS.
#[derive(Clone)]
pub struct TlsAcceptor(tokio_rustls::TlsAcceptor);

/// A Redis client's stream under TLS.
pub type TlsStream = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;

impl TlsAcceptor {
    pub async fn accept(&self, stream: tokio::net::TcpStream) -> std::io::Result<TlsStream> {
        self.0.accept(stream).await
    }
}

/// TLS for the RESP door. `require_client_cert`: only bearers of a certificate of this cluster get in.
pub fn resp_server_config(identity: &Identity, require_client_cert: bool) -> Result<TlsAcceptor, TlsError> {
    let builder = rustls::ServerConfig::builder_with_provider(identity.provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(setup)?;
    let builder = if require_client_cert {
        let verifier = WebPkiClientVerifier::builder_with_provider(identity.roots.clone(), identity.provider.clone())
            .build()
            .map_err(setup)?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified.clone())));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor(tokio_rustls::TlsAcceptor::from(Arc::new(config))))
}

/// Writes a new file that everybody may read.
pub fn write_certificate(path: &Path, pem: &str) -> Result<(), TlsError> {
    write_new(path, pem, 0o644)
}

/// Writes a new file that only its owner may read (0600 from its first moment on).
pub fn write_key(path: &Path, pem: &str) -> Result<(), TlsError> {
    write_new(path, pem, 0o600)
}

struct Origins {
    authority: String,
    certificate: String,
    key: String,
}

/// AES-128 before AES-256: the same security for our purpose and fewer rounds for each packet.
fn provider() -> CryptoProvider {
    use rustls::crypto::ring::{cipher_suite, default_provider};
    let mut provider = default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    provider
}

pub(super) fn bearer_name(name: &str, role: Role, cluster: &str) -> String {
    format!("{name}.{}.{cluster}.{DOMAIN}", role.label())
}

/// The cluster and the bearer that the one name under `.tidewater` tells.
pub(super) fn bearer_of(certificate: &CertificateDer<'_>, origin: &str) -> Result<(String, PeerIdentity), TlsError> {
    let certificate = parsed(certificate, origin)?;
    let mut found = Vec::new();
    if let Ok(Some(names)) = certificate.subject_alternative_name() {
        for name in &names.value.general_names {
            if let GeneralName::DNSName(name) = name
                && name.ends_with(&format!(".{DOMAIN}"))
            {
                found.push((*name).to_owned());
            }
        }
    }
    if let [only] = &found[..]
        && let [name, role, cluster, _] = only.split('.').collect::<Vec<_>>()[..]
    {
        match role {
            "node" => return Ok((cluster.to_owned(), PeerIdentity::Node(name.to_owned()))),
            "client" => return Ok((cluster.to_owned(), PeerIdentity::Client(name.to_owned()))),
            _ => {}
        }
    }
    Err(TlsError::NoBearer { origin: origin.to_owned(), found })
}

fn cluster_of_authority(certificate: &CertificateDer<'_>, origin: &str) -> Result<String, TlsError> {
    let certificate = parsed(certificate, origin)?;
    let wrong = |why| TlsError::NotAuthority { origin: origin.to_owned(), why };
    if !certificate.is_ca() {
        return Err(wrong("may not issue certificates (is it a node's own certificate?)"));
    }
    let cluster = certificate.subject().iter_organization().next().and_then(|part| part.as_str().ok());
    cluster.map(str::to_owned).ok_or_else(|| wrong("names no cluster as its organization"))
}

/// That `certified` is of this authority and valid now, as every peer is going to check.
fn check_issued(
    certified: &CertifiedKey,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    not_after_s: i64,
    origins: &Origins,
    wall_ms: u64,
) -> Result<(), TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().map_err(setup)?;
    let now = UnixTime::since_unix_epoch(Duration::from_millis(wall_ms));
    let Err(error) = verifier.verify_client_cert(&certified.cert[0], &certified.cert[1..], now) else {
        return Ok(());
    };
    let origin = origins.certificate.clone();
    Err(match error {
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            let days = ((wall_ms / 1000) as i64 - not_after_s) / SECONDS_A_DAY as i64;
            TlsError::Expired { origin, days }
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => TlsError::NotValidYet { origin },
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            let why = error.to_string();
            TlsError::ForeignAuthority { origin, authority: origins.authority.clone(), why }
        }
        error => bad_certificate(&origin, error),
    })
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificate_origin: &str,
    key_origin: &str,
) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::KeyMismatch { key: key_origin.to_owned(), certificate: certificate_origin.to_owned() }
        }
        error => TlsError::BadKey { origin: key_origin.to_owned(), why: error.to_string() },
    })
}

/// All certificates of a PEM text; at least one.
fn certificates(pem: &str, origin: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let not_pem = |why: String| TlsError::NotPem { what: "certificate", origin: origin.to_owned(), why };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(not_pem("no section BEGIN CERTIFICATE".to_owned())),
        Err(error) => Err(not_pem(error.to_string())),
    }
}

fn private_key(pem: &str, origin: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| TlsError::NotPem {
        what: "private key",
        origin: origin.to_owned(),
        why: error.to_string(),
    })
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>, origin: &str) -> Result<X509Certificate<'a>, TlsError> {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(TlsError::BadCertificate { origin: origin.to_owned(), why: error.to_string() }),
    }
}

fn reset_key(key: &PrivateKeyDer<'_>) -> ::ring::hmac::Key {
    let secret = ::ring::hmac::Key::new(::ring::hmac::HMAC_SHA256, key.secret_der());
    let derived = ::ring::hmac::sign(&secret, b"tidewater stateless reset");
    ::ring::hmac::Key::new(::ring::hmac::HMAC_SHA256, derived.as_ref())
}

fn dated(valid_days: u32, wall_ms: u64) -> Result<CertificateParams, TlsError> {
    if !(1..=VALID_DAYS_MAX).contains(&valid_days) {
        return Err(TlsError::BadValidity { days: valid_days });
    }
    // A wall clock beyond the year 5000 is broken; the bound keeps date arithmetic from overflowing.
    let now_s = (wall_ms / 1000).min(95_617_584_000);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(now_s.saturating_sub(BACKDATE_SECONDS));
    params.not_after = epoch + Duration::from_secs(now_s + u64::from(valid_days) * SECONDS_A_DAY);
    Ok(params)
}

fn subject(common_name: &str, cluster: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name.push(DnType::OrganizationName, cluster);
    name
}

fn dns_name(name: &str) -> Result<SanType, TlsError> {
    Ok(SanType::DnsName(name.try_into().map_err(making)?))
}

fn further_host(host: &str) -> Result<SanType, TlsError> {
    let lower = host.to_ascii_lowercase();
    // A wildcard is checked as the name it stands for.
    let plain = lower.strip_prefix("*.").unwrap_or(&lower);
    if plain.ends_with(&format!(".{DOMAIN}")) || plain == DOMAIN || ServerName::try_from(plain).is_err() {
        return Err(TlsError::BadHost { host: host.to_owned() });
    }
    dns_name(host)
}

/// One label of a DNS name.
fn check_name(what: &'static str, name: &str) -> Result<(), TlsError> {
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if bytes.len() <= 63 && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(inner) {
        return Ok(());
    }
    Err(TlsError::BadName { what, name: name.to_owned() })
}

fn new_key() -> Result<KeyPair, TlsError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(making)
}

fn read(what: &'static str, path: &Path) -> Result<String, TlsError> {
    std::fs::read_to_string(path).map_err(|source| TlsError::Unreadable { what, path: path.to_owned(), source })
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let wrong = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => TlsError::Exists { path: path.to_owned() },
        _ => TlsError::Unwritable { path: path.to_owned(), source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(wrong)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)
}

fn making(error: rcgen::Error) -> TlsError {
    TlsError::Making { why: error.to_string() }
}

fn setup(error: impl std::fmt::Display) -> TlsError {
    TlsError::Setup { why: error.to_string() }
}

fn bad_certificate(origin: &str, error: rustls::Error) -> TlsError {
    TlsError::BadCertificate { origin: origin.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DAY_MS: u64 = SECONDS_A_DAY * 1000;
    const NOW_MS: u64 = 1_800_000_000_000;

    fn issue(authority: &ClusterAuthority, name: &str, role: Role) -> IssuedCertificate {
        authority.issue(name, role, &[], 10, NOW_MS).unwrap()
    }

    #[test]
    fn an_identity_knows_whom_it_names_and_how_long() {
        let authority = ClusterAuthority::create("shop", 100, NOW_MS).unwrap();
        let node = issue(&authority, "n1", Role::Node);
        let identity =
            Identity::from_pem(authority.certificate_pem(), &node.certificate_pem, &node.key_pem, NOW_MS).unwrap();
        assert_eq!(identity.bearer(), &PeerIdentity::Node("n1".to_owned()));
        assert_eq!(identity.cluster(), "shop");
        assert_eq!(identity.days_left(NOW_MS), 10);
        assert_eq!(identity.days_left(NOW_MS + 11 * DAY_MS), -1);
        let client = issue(&authority, "ops", Role::Client);
        let identity =
            Identity::from_pem(authority.certificate_pem(), &client.certificate_pem, &client.key_pem, NOW_MS).unwrap();
        assert_eq!(identity.bearer(), &PeerIdentity::Client("ops".to_owned()));
        resp_server_config(&identity, true).unwrap();
    }

    #[test]
    fn an_authority_read_back_issues_what_the_first_one_trusts() {
        let authority = ClusterAuthority::create("shop", 100, NOW_MS).unwrap();
        let again = ClusterAuthority::from_pem(authority.certificate_pem(), &authority.key_pem()).unwrap();
        assert_eq!(again.cluster(), "shop");
        let node = again.issue("n1", Role::Node, &["localhost".into(), "::1".into()], 10, NOW_MS).unwrap();
        Identity::from_pem(authority.certificate_pem(), &node.certificate_pem, &node.key_pem, NOW_MS).unwrap();
    }

    #[test]
    fn each_mistake_has_its_own_sentence() {
        let authority = ClusterAuthority::create("shop", 100, NOW_MS).unwrap();
        let other = ClusterAuthority::create("shop", 100, NOW_MS).unwrap();
        let (n1, n2) = (issue(&authority, "n1", Role::Node), issue(&authority, "n2", Role::Node));
        let ca = authority.certificate_pem();
        let wrong = |ca: &str, certificate: &str, key: &str, at_ms: u64| {
            Identity::from_pem(ca, certificate, key, at_ms).unwrap_err()
        };
        let (certificate, key) = (&n1.certificate_pem, &n1.key_pem);
        assert!(matches!(wrong(ca, certificate, &n2.key_pem, NOW_MS), TlsError::KeyMismatch { .. }));
        assert!(matches!(wrong(other.certificate_pem(), certificate, key, NOW_MS), TlsError::ForeignAuthority { .. }));
        assert!(matches!(wrong(ca, certificate, key, NOW_MS + 15 * DAY_MS), TlsError::Expired { days: 5, .. }));
        assert!(matches!(wrong(ca, certificate, key, NOW_MS - 2 * DAY_MS), TlsError::NotValidYet { .. }));
        assert!(matches!(wrong(ca, key, certificate, NOW_MS), TlsError::NotPem { what: "certificate", .. }));
        assert!(matches!(wrong(ca, certificate, "rubbish", NOW_MS), TlsError::NotPem { what: "private key", .. }));
        assert!(matches!(wrong(certificate, certificate, key, NOW_MS), TlsError::NotAuthority { .. }));
        assert!(matches!(wrong(ca, ca, &authority.key_pem(), NOW_MS), TlsError::NoBearer { .. }));
        let missing = Path::new("/no/such/file.pem");
        assert!(matches!(Identity::load(missing, missing, missing, NOW_MS).unwrap_err(), TlsError::Unreadable { .. }));
        assert!(ClusterAuthority::from_pem(ca, &other.key_pem()).is_err());
    }

    #[test]
    fn names_that_could_be_mistaken_are_refused() {
        let authority = ClusterAuthority::create("shop", 100, NOW_MS).unwrap();
        for name in ["", "a.b", "-a", "a_", "n\u{e4}me", &"x".repeat(64)] {
            assert!(matches!(authority.issue(name, Role::Node, &[], 1, NOW_MS), Err(TlsError::BadName { .. })));
        }
        for host in ["n2.node.shop.tidewater", "N2.Node.Shop.Tidewater", "*.tidewater", "", "a b"] {
            let hosts = [host.to_owned()];
            assert!(matches!(authority.issue("n1", Role::Node, &hosts, 1, NOW_MS), Err(TlsError::BadHost { .. })));
        }
        assert!(matches!(authority.issue("n1", Role::Node, &[], 0, NOW_MS), Err(TlsError::BadValidity { days: 0 })));
        assert!(ClusterAuthority::create("two.labels", 1, NOW_MS).is_err());
    }

    #[test]
    fn a_certificate_of_another_cluster_under_one_authority_is_not_ours() {
        let authority = ClusterAuthority::create("shop", 100, NOW_MS).unwrap();
        let mut twin = ClusterAuthority::from_pem(authority.certificate_pem(), &authority.key_pem()).unwrap();
        twin.cluster = "stage".to_owned();
        let ours = issue(&authority, "n1", Role::Node);
        let theirs = issue(&twin, "n1", Role::Node);
        let ca = authority.certificate_pem();
        let identity = Identity::from_pem(ca, &ours.certificate_pem, &ours.key_pem, NOW_MS).unwrap();
        let other = Identity::from_pem(ca, &theirs.certificate_pem, &theirs.key_pem, NOW_MS).unwrap();
        assert!(identity.identify(&identity.certified.cert[0]).is_ok());
        assert!(identity.identify(&other.certified.cert[0]).is_err());
    }

    #[tokio::test]
    async fn the_resp_door_speaks_tls_to_whom_it_should() {
        use rustls::ClientConfig;
        use tokio::io::AsyncReadExt;

        // rustls looks at the machine's clock, so these are valid for long.
        let authority = ClusterAuthority::create("shop", 36_500, 1_000_000_000_000).unwrap();
        let issued = authority.issue("n1", Role::Node, &["localhost".to_owned()], 36_500, 1_000_000_000_000).unwrap();
        let identity =
            Identity::from_pem(authority.certificate_pem(), &issued.certificate_pem, &issued.key_pem, NOW_MS).unwrap();
        for (required, shown) in [(false, false), (true, true), (true, false)] {
            let acceptor = resp_server_config(&identity, required).unwrap();
            let builder = ClientConfig::builder_with_provider(identity.provider.clone())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(identity.roots.clone());
            let config = match shown {
                true => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified.clone()))),
                false => builder.with_no_client_auth(),
            };
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let far = listener.accept().await.unwrap().0;
            let serve = async move {
                let mut stream = acceptor.accept(far).await?;
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"+PONG").await?;
                tokio::io::AsyncWriteExt::shutdown(&mut stream).await
            };
            let ask = async move {
                let name = ServerName::try_from("localhost").unwrap();
                let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
                let mut heard = Vec::new();
                connector.connect(name, near).await?.read_to_end(&mut heard).await?;
                io::Result::Ok(heard)
            };
            let (served, heard) = tokio::join!(serve, ask);
            if required && !shown {
                assert!(served.is_err() && heard.is_err(), "no certificate, no word");
            } else {
                served.unwrap();
                assert_eq!(heard.unwrap(), b"+PONG");
            }
        }
    }

    #[test]
    fn keys_are_for_their_owner_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_key(&path, "secret").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(write_key(&path, "other"), Err(TlsError::Exists { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret");
    }
}
