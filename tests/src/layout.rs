//! The ways to store archived WAL, each filled by the tool that has it: what `pg_backstop.archive_source` can name.
//!
//! One cluster is made in a process whose archiver never got anything away, so that all its WAL waits in `pg_wal`. A copy of
//! it is given an archive, and the server itself sends everything there.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use wal::BackupHistory;

use crate::archive::{Archive, Fault};
use crate::barman::Barman;
use crate::codec::Codec;
use crate::pgbackrest::{PgBackRest, STANZA};
use crate::process;
use crate::running::Running;
use crate::scene::Scene;
use crate::wait::SOON;
use crate::{Cluster, Look, Settings, Shutdown, wait_until};

/// Keeps WAL for `pg_receivewal` from before it starts.
const SLOT: &str = "receiver";

/// A way to store archived WAL. What compresses it, if anything, is the tool's own code where the tool compresses.
#[derive(Clone, Copy, Debug)]
pub enum Layout {
    /// A directory that `cp` or a compressor fills.
    Directory(Option<Codec>),
    /// A directory that `basic_archive` fills.
    BasicArchive,
    /// A directory that `pg_receivewal` fills; the server archives nothing.
    ReceiveWal(Option<Codec>),
    /// A repository of pgBackRest.
    PgBackRest(Option<Codec>),
    /// A directory of Barman's, taken in file by file.
    Barman(Option<Codec>),
    /// The same, with the `archive_command` of Barman's manual and a job that takes in what has come.
    BarmanCron,
    /// As WAL-G stores it in a directory. WAL-G itself is no package of the distribution.
    WalG(Codec),
    /// A directory that only `restore_command` is known to read.
    RestoreCommand(Option<Codec>),
}

/// A cluster whose WAL is archived in a layout. The server runs; the extension is not created yet.
#[derive(Debug)]
pub struct Stored {
    // Dropped first: it connects to the server.
    _helper: Option<Running>,
    /// The cluster. Its own `archive()` is not in use.
    pub scene: Scene,
    /// The files as they are stored; see [`Self::file`].
    pub archive: Archive,
    layout: Layout,
}

impl Layout {
    /// A cluster whose WAL is all archived in this layout.
    ///
    /// # Errors
    /// When the tool is missing or fails.
    pub fn scene(self) -> Result<Stored> {
        let mut scene = unarchived()?;
        if let Self::ReceiveWal(_) = self {
            scene.cluster.set("archive_mode", "off")?;
            for name in &scene.segments {
                fs::remove_file(
                    scene
                        .cluster
                        .data()
                        .join("pg_wal/archive_status")
                        .join(format!("{name}.ready")),
                )?;
            }
        }
        scene.cluster.start_server()?;
        let root = self.prepare(&scene.cluster)?;
        for (name, value) in self.settings(&scene.cluster)? {
            scene.cluster.set(name, &value)?;
        }
        scene.cluster.reload()?;
        if let Self::ReceiveWal(_) = self {
            // The archiver of the cluster that this is a copy of had failed.
            scene.cluster.text("SELECT pg_stat_reset_shared('archiver')")?;
        } else {
            scene
                .cluster
                .text(&format!("SELECT pg_drop_replication_slot('{SLOT}')"))?;
        }
        let helper = self.helper(&scene.cluster)?;
        let kept = scene.cluster.place("originals");
        let stored = Stored {
            _helper: helper,
            archive: Archive::of(root, kept)?,
            scene,
            layout: self,
        };
        stored.wait_until_stored()?;
        stored.leave_to_the_archive()?;
        Ok(stored)
    }

    /// Makes what has to be there before the first file is archived, and says where the archive is.
    fn prepare(self, cluster: &Cluster) -> Result<PathBuf> {
        Ok(match self {
            Self::PgBackRest(codec) => {
                let pgbackrest = PgBackRest::new(cluster, codec)?;
                pgbackrest.create_stanza()?;
                pgbackrest.repository().to_owned()
            }
            Self::Barman(codec) => Barman::new(cluster, codec)?.wals(),
            Self::BarmanCron => Barman::new(cluster, None)?.wals(),
            Self::WalG(_) => {
                let root = cluster.place("walg");
                for directory in [root.clone(), root.join("wal_005")] {
                    fs::create_dir(&directory)?;
                    process::give_to_server(&directory)?;
                }
                root
            }
            _ => cluster.archive().path().to_owned(),
        })
    }

    fn settings(self, cluster: &Cluster) -> Result<Vec<(&'static str, String)>> {
        let directory = cluster.archive().path().display().to_string();
        let command = |codec: Option<Codec>| match codec {
            None => cluster.archive().command(),
            Some(codec) => codec.shell("\"%p\"", &format!("\"{directory}/%f{}\"", codec.suffix())),
        };
        Ok(match self {
            Self::Directory(codec) => vec![("archive_command", command(codec))],
            Self::BasicArchive => vec![
                ("archive_command", String::new()),
                ("archive_library", "basic_archive".to_owned()),
                ("basic_archive.archive_directory", directory),
            ],
            Self::ReceiveWal(_) => Vec::new(),
            Self::PgBackRest(codec) => {
                vec![("archive_command", PgBackRest::new(cluster, codec)?.archive_command())]
            }
            Self::Barman(codec) => vec![("archive_command", Barman::new(cluster, codec)?.archive_command())],
            Self::BarmanCron => vec![("archive_command", Barman::new(cluster, None)?.plain_archive_command())],
            Self::WalG(codec) => {
                let to = format!("{}/wal_005/%f{}", cluster.place("walg").display(), codec.suffix());
                vec![("archive_command", codec.shell("%p", &to))]
            }
            Self::RestoreCommand(codec) => {
                let restore = match codec {
                    None => format!("cp \"{directory}/%f\" \"%p\""),
                    Some(codec) => format!(
                        "{} -dc < \"{directory}/%f{}\" > \"%p\"",
                        codec.program(),
                        codec.suffix()
                    ),
                };
                vec![("archive_command", command(codec)), ("restore_command", restore)]
            }
        })
    }

    /// What `pg_backstop.archive_source` is to be for it.
    #[must_use]
    pub fn source(self, cluster: &Cluster) -> String {
        match self {
            Self::PgBackRest(_) => format!(
                "pgbackrest:{}",
                cluster.place("pgbackrest/repo/archive").join(STANZA).display()
            ),
            Self::Barman(_) | Self::BarmanCron => format!("barman:{}", cluster.place("barman/main/wals").display()),
            Self::WalG(_) => format!("walg:{}", cluster.place("walg").display()),
            Self::RestoreCommand(_) => "restore_command".to_owned(),
            Self::Directory(_) | Self::BasicArchive | Self::ReceiveWal(_) => {
                format!("dir:{}", cluster.archive().path().display())
            }
        }
    }

    /// A process that has to run beside the server.
    fn helper(self, cluster: &Cluster) -> Result<Option<Running>> {
        let mut command = match self {
            Self::ReceiveWal(codec) => {
                let mut command = cluster.client_command("pg_receivewal")?;
                command.arg("-D").arg(cluster.archive().path());
                command.args(["--slot", SLOT, "--no-loop", "--status-interval=1"]);
                if let Some(codec) = codec {
                    command.arg(format!("--compress={}", codec.program()));
                }
                command
            }
            Self::BarmanCron => {
                let script = format!("while sleep 1; do {}; done", Barman::new(cluster, None)?.take_in());
                let mut cron = process::program("sh", process::OnOurEnd::Kill)?;
                cron.args(["-c", &script]);
                cron
            }
            _ => return Ok(None),
        };
        let log = fs::File::create(cluster.place("helper.log"))?;
        let child = process::spawn(command.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log)))?;
        Ok(Some(Running::new(child)))
    }

    /// What compresses the files, if anything.
    #[must_use]
    pub fn codec(self) -> Option<Codec> {
        match self {
            Self::Directory(codec)
            | Self::ReceiveWal(codec)
            | Self::PgBackRest(codec)
            | Self::Barman(codec)
            | Self::RestoreCommand(codec) => codec,
            Self::WalG(codec) => Some(codec),
            Self::BasicArchive | Self::BarmanCron => None,
        }
    }

    /// Whether the compressed files carry a checksum of what is in them, so that no damage escapes the decompressor.
    #[must_use]
    pub fn is_checksummed(self) -> bool {
        match (self, self.codec()) {
            (_, None | Some(Codec::Brotli)) => false,
            // Neither sets the flag that asks for one (LZ4F_preferences_t, ZSTD_c_checksumFlag).
            (Self::ReceiveWal(_), Some(Codec::Lz4)) | (Self::PgBackRest(_), Some(Codec::Zstd)) => false,
            _ => true,
        }
    }

    /// Whether backups show in it by themselves.
    fn tells_of_backups(self) -> bool {
        !matches!(self, Self::ReceiveWal(_) | Self::RestoreCommand(_))
    }

    /// The directory of a segment below the root.
    fn directory(self, cluster: &Cluster, segment: &str) -> String {
        let log = segment.get(..16).unwrap_or(segment);
        match self {
            Self::PgBackRest(_) => format!("archive/{STANZA}/{}-1/{log}", cluster.server().major()),
            Self::Barman(_) | Self::BarmanCron => log.to_owned(),
            Self::WalG(_) => "wal_005".to_owned(),
            _ => ".".to_owned(),
        }
    }
}

impl Stored {
    /// Creates the extension, and has it look here. `auto`: it is to find out by itself where.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn watch(&mut self, auto: bool) -> Result<()> {
        let source = if auto {
            "auto".to_owned()
        } else {
            self.layout.source(&self.scene.cluster)
        };
        self.scene.cluster.set("pg_backstop.archive_source", &source)?;
        self.scene.cluster.reload()?;
        let cluster = &self.scene.cluster;
        cluster.text("CREATE EXTENSION pg_backstop")?;
        if !self.layout.tells_of_backups() {
            let backup = &self.scene.backup;
            cluster.text(&format!(
                "INSERT INTO backup_history (backup_type, method, system_identifier, timeline_id, start_lsn, end_lsn,
                                             start_wal_file, end_wal_file, status, finished_at, origin)
                 SELECT 'full', 'pg_basebackup', system_identifier, 1, '{}', '{}', '{}', '{}', 'completed', now(), 'imported'
                   FROM pg_control_system()",
                backup.start_lsn, backup.stop_lsn, backup.start_wal_file, backup.stop_wal_file
            ))?;
        }
        Ok(())
    }

    /// The path of a segment as it is stored, below the archive.
    ///
    /// # Errors
    /// When it is not there.
    pub fn file(&self, segment: &str) -> Result<String> {
        let directory = self.layout.directory(&self.scene.cluster, segment);
        let suffix = self.layout.codec().map_or("", Codec::suffix);
        for entry in fs::read_dir(self.archive.file(&directory))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let is_it = |rest: &str| rest.is_empty() || rest == suffix || rest.starts_with('-');
            if name.strip_prefix(segment).is_some_and(is_it) {
                return Ok(format!("{directory}/{name}"));
            }
        }
        anyhow::bail!("{segment} is not in {}", self.archive.file(&directory).display())
    }

    fn wait_until_stored(&self) -> Result<()> {
        wait_until("the segments to be archived", SOON * 2, || {
            let absent = self.scene.segments.iter().find(|segment| self.file(segment).is_err());
            Ok(match absent {
                None => Look::Done(()),
                Some(segment) => Look::not_yet(format!("{segment} is not there")),
            })
        })
        .with_context(|| {
            let helper = fs::read_to_string(self.scene.cluster.place("helper.log")).unwrap_or_default();
            format!(
                "{:?}\n{helper}{}",
                self.layout,
                self.scene.cluster.log().unwrap_or_default()
            )
        })
    }

    /// Has the server forget what is archived, so that nothing but the archive has it.
    fn leave_to_the_archive(&self) -> Result<()> {
        let cluster = &self.scene.cluster;
        let last = self.scene.segments.last().context("segments")?;
        // Recycled files have later names.
        let left = format!("SELECT count(*) FROM pg_ls_waldir() WHERE length(name) = 24 AND name <= '{last}'");
        wait_until("pg_wal to be without the archived segments", SOON, || {
            cluster.text("CHECKPOINT")?;
            let left = cluster.text(&left)?;
            Ok(if left == "0" {
                Look::Done(())
            } else {
                Look::NotYet(left)
            })
        })
    }

    /// The content of a segment.
    ///
    /// # Errors
    /// When it is not there, or does not decompress.
    pub fn content(&self, segment: &str) -> Result<Vec<u8>> {
        let bytes = self.archive.read(&self.file(segment)?)?;
        match self.layout.codec() {
            Some(codec) => codec.decompress(&bytes),
            None => Ok(bytes),
        }
    }

    /// Changes the content of a segment; how it is stored stays.
    ///
    /// # Errors
    /// See [`Self::content`].
    pub fn change(&self, segment: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<Fault> {
        let mut content = self.content(segment)?;
        change(&mut content);
        let bytes = match self.layout.codec() {
            Some(codec) => codec.compress(&content)?,
            None => content,
        };
        self.archive.replace(&self.file(segment)?, &bytes)
    }
}

/// A copy, not running, of the cluster whose archiver never got anything away.
fn unarchived() -> Result<Scene> {
    static BASE: Mutex<Option<Cluster>> = Mutex::new(None);
    let mut base = BASE.lock().unwrap_or_else(PoisonError::into_inner);
    let base = match &mut *base {
        Some(base) => base,
        none => none.insert(make_base()?),
    };
    let cluster = base.copy()?;
    let status = cluster.data().join("pg_wal/archive_status");
    let mut waiting = Vec::new();
    for entry in fs::read_dir(&status)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        waiting.extend(name.strip_suffix(".ready").map(str::to_owned));
    }
    waiting.sort();
    let backup = waiting.iter().find(|name| name.ends_with(".backup"));
    let backup = backup.context("the base backup left no file for the archive")?;
    let told = fs::read(cluster.data().join("pg_wal").join(backup))?;
    // What is older than the backup is nobody's concern.
    let first = BackupHistory::parse(&told)?.start_wal_file;
    waiting.retain(|name| name.len() == 24 && *name >= first);
    Scene::of(cluster, waiting, &told)
}

fn make_base() -> Result<Cluster> {
    let settings = Settings::new()
        .set("pg_backstop.archive_grace", "2s")
        .set("archive_command", "false");
    let mut base = Cluster::start(settings)?;
    base.text(&format!("SELECT pg_create_physical_replication_slot('{SLOT}', true)"))?;
    base.base_backup(&base.place("backup"))?;
    base.client("pgbench", &["-i", "-q", "-s", "1"])?;
    base.client("pgbench", &["-c", "2", "-t", "400"])?;
    base.text("SELECT pg_switch_wal()")?;
    base.stop(Shutdown::Fast)?;
    Ok(base)
}
