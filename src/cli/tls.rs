//! `tidewater tls`: the authority of a cluster and the certificates it issues. The work is done in `net::tls`; here are the
//! folders and the words.
//!
//! ```text
//!  DIR/ca.crt      the authority, which everybody needs           NAME.crt   who a node or client is
//!  DIR/ca.key      its key, which no node needs (0600)            NAME.key   the proof of it (0600)
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use crate::host::clock;
use crate::net::tls::{ClusterAuthority, Identity, Role, write_certificate, write_key};

use super::args::Output;
use super::args::tls::{TlsArgs, TlsInitArgs, TlsIssueArgs, TlsRole, TlsShowArgs, TlsVerb};
use super::{CliError, EXIT_FAILED, print};

pub fn run(args: TlsArgs) -> Result<ExitCode, CliError> {
    match args.verb {
        TlsVerb::Init(args) => init(&args),
        TlsVerb::Issue(args) => issue(&args),
        TlsVerb::Show(args) => show(&args),
    }
}

fn init(args: &TlsInitArgs) -> Result<ExitCode, CliError> {
    create_authority(&args.dir, &args.cluster, args.days)?;
    let dir = args.dir.display();
    print(&format!(
        "The authority of the cluster '{}' is in {dir}: ca.crt for everybody, ca.key for you alone.\n\
         Next, for each node and client:\n\
         \x20 tidewater tls issue --dir {dir} --name n1 --role node\n\
         \x20 tidewater tls issue --dir {dir} --name client --role client\n",
        args.cluster
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn issue(args: &TlsIssueArgs) -> Result<ExitCode, CliError> {
    let authority = open_authority(&args.dir)?;
    let out = args.out.as_ref().unwrap_or(&args.dir);
    let bearer = Bearer { name: &args.name, role: args.role.into(), hosts: &args.hosts, days: args.days };
    issue_certificate(&authority, out, bearer, args.force)?;
    let (name, out, days) = (&args.name, out.display(), args.days);
    print(&format!("{out}/{name}.crt and {out}/{name}.key are good for {days} days; they go with {out}/ca.crt.\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn show(args: &TlsShowArgs) -> Result<ExitCode, CliError> {
    let authority = args.dir.join("ca.crt");
    let mut found = Vec::new();
    let entries = fs::read_dir(&args.dir).map_err(CliError::io(format!("the folder {}", args.dir.display())))?;
    for entry in entries {
        let path = entry.map_err(CliError::io(format!("the folder {}", args.dir.display())))?.path();
        if path.extension().is_some_and(|extension| extension == "crt") && path != authority {
            found.push(path);
        }
    }
    found.sort();
    let wall_ms = clock::wall_ms();
    let shown: Vec<_> = found
        .iter()
        .map(|path| (path, Identity::load(&authority, path, &path.with_extension("key"), wall_ms)))
        .collect();
    let is_fine = shown.iter().all(|(_, identity)| identity.is_ok());
    match args.output {
        Output::Json => {
            let certificates: Vec<_> = shown
                .iter()
                .map(|(path, identity)| match identity {
                    Ok(identity) => json!({
                        "file": path.display().to_string(),
                        "name": identity.bearer().name(),
                        "role": role_name(identity.bearer().role()),
                        "cluster": identity.cluster(),
                        "days_left": identity.days_left(wall_ms),
                    }),
                    Err(error) => json!({ "file": path.display().to_string(), "error": error.to_string() }),
                })
                .collect();
            print(&format!("{}\n", json!({ "certificates": certificates })))?;
        }
        Output::Text if shown.is_empty() => {
            print(&format!("{} holds no certificates of nodes or clients.\n", args.dir.display()))?;
        }
        Output::Text => {
            let mut text = format!("{:<20} {:<8} {:<20} {}\n", "NAME", "ROLE", "CLUSTER", "ENDS IN");
            for (path, identity) in &shown {
                text += &match identity {
                    Ok(identity) => format!(
                        "{:<20} {:<8} {:<20} {} days\n",
                        identity.bearer().name(),
                        role_name(identity.bearer().role()),
                        identity.cluster(),
                        identity.days_left(wall_ms)
                    ),
                    Err(error) => format!("{}: {error}\n", path.display()),
                };
            }
            print(&text)?;
        }
    }
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

/// Makes `dir/ca.crt` and `dir/ca.key`; an authority that is there already is an error.
pub fn create_authority(dir: &Path, cluster: &str, days: u32) -> Result<ClusterAuthority, CliError> {
    create_folder(dir)?;
    let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
    for path in [&certificate, &key] {
        if path.exists() {
            let message = format!(
                "{} exists already: a second authority would shut out all that the first one let in. Use another --dir, or \
                 remove it first",
                path.display()
            );
            return Err(CliError::failed(message));
        }
    }
    let authority = ClusterAuthority::create(cluster, days, clock::wall_ms()).map_err(failed)?;
    write_key(&key, &authority.key_pem()).map_err(failed)?;
    write_certificate(&certificate, authority.certificate_pem()).map_err(failed)?;
    Ok(authority)
}

/// The authority in `dir`.
pub fn open_authority(dir: &Path) -> Result<ClusterAuthority, CliError> {
    ClusterAuthority::load(&dir.join("ca.crt"), &dir.join("ca.key")).map_err(|error| {
        CliError::failed(format!("{error}\nMake one with: tidewater tls init --dir {}", dir.display()))
    })
}

/// Whom a certificate is for.
pub struct Bearer<'a> {
    pub name: &'a str,
    pub role: Role,
    /// Further names and addresses, for the RESP door.
    pub hosts: &'a [String],
    pub days: u32,
}

/// Writes NAME.crt, NAME.key and, if it is not there, ca.crt into `out`. Without `force` existing ones are an error.
pub fn issue_certificate(
    authority: &ClusterAuthority,
    out: &Path,
    bearer: Bearer,
    force: bool,
) -> Result<(), CliError> {
    let Bearer { name, role, hosts, days } = bearer;
    // Made before anything is touched: a bad name is refused here, and is no path then.
    let issued = authority.issue(name, role, hosts, days, clock::wall_ms()).map_err(failed)?;
    let (certificate, key) = (out.join(format!("{name}.crt")), out.join(format!("{name}.key")));
    if name == "ca" {
        return Err(CliError::usage("'ca' is the authority's own file name: choose another --name"));
    }
    create_folder(out)?;
    if force {
        remove(&certificate)?;
        remove(&key)?;
    } else if let Some(there) = [&certificate, &key].into_iter().find(|path| path.exists()) {
        return Err(CliError::failed(format!("{} exists already: replace it with --force", there.display())));
    }
    write_key(&key, &issued.key_pem).map_err(failed)?;
    write_certificate(&certificate, &issued.certificate_pem).map_err(failed)?;
    let root = out.join("ca.crt");
    if !root.exists() {
        write_certificate(&root, authority.certificate_pem()).map_err(failed)?;
    }
    Ok(())
}

fn create_folder(dir: &Path) -> Result<(), CliError> {
    fs::create_dir_all(dir).map_err(CliError::io(format!("cannot make the folder {}", dir.display())))
}

fn remove(path: &PathBuf) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CliError::Io { what: format!("cannot remove {}", path.display()), error })
        }
        _ => Ok(()),
    }
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::failed(error.to_string())
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        Role::Client => "client",
    }
}

impl From<TlsRole> for Role {
    fn from(role: TlsRole) -> Self {
        match role {
            TlsRole::Node => Role::Node,
            TlsRole::Client => Role::Client,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn bearer(name: &str, role: Role) -> Bearer<'_> {
        Bearer { name, role, hosts: &[], days: 30 }
    }

    #[test]
    fn what_is_issued_is_good_and_its_key_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = create_authority(folder.path(), "shop", 365).expect("an authority");
        let out = folder.path().join("n1");
        issue_certificate(&authority, &out, bearer("n1", Role::Node), false).expect("a certificate");
        let (root, certificate, key) = (out.join("ca.crt"), out.join("n1.crt"), out.join("n1.key"));
        let identity = Identity::load(&root, &certificate, &key, clock::wall_ms()).expect("it is good");
        assert_eq!((identity.cluster(), identity.bearer().name()), ("shop", "n1"));
        for key in [key, folder.path().join("ca.key")] {
            let mode = fs::metadata(key).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn nothing_is_overwritten_unasked() {
        let folder = tempfile::tempdir().expect("a folder");
        create_authority(folder.path(), "shop", 365).expect("an authority");
        let error = create_authority(folder.path(), "shop", 365).err().expect("refused").to_string();
        assert!(error.contains("exists already"), "{error}");
        let authority = open_authority(folder.path()).expect("it is there");
        issue_certificate(&authority, folder.path(), bearer("c", Role::Client), false).expect("a certificate");
        let before = fs::read(folder.path().join("c.crt")).expect("it is there");
        let again = issue_certificate(&authority, folder.path(), bearer("c", Role::Client), false);
        assert!(again.expect_err("refused").to_string().contains("--force"));
        assert_eq!(fs::read(folder.path().join("c.crt")).expect("it is there"), before);
        issue_certificate(&authority, folder.path(), bearer("c", Role::Client), true).expect("replaced");
        assert_ne!(fs::read(folder.path().join("c.crt")).expect("it is there"), before);
    }

    #[test]
    fn bad_names_and_missing_authorities_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = open_authority(folder.path()).err().expect("there is none").to_string();
        assert!(error.contains("tidewater tls init"), "{error}");
        let authority = create_authority(folder.path(), "shop", 365).expect("an authority");
        for name in ["../n1", "", "n 1", "ca"] {
            assert!(issue_certificate(&authority, folder.path(), bearer(name, Role::Node), true).is_err(), "{name}");
        }
        open_authority(folder.path()).expect("still whole");
    }
}
