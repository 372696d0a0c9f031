//! One cluster whose WAL goes to pgBackRest, to Barman and into a plain directory at once, so that the same fault can be made
//! for each tool in its own archive.

use std::fs;

use anyhow::{Context, Result};
use tests::archive::{Archive, Fault};
use tests::barman::Barman;
use tests::pgbackrest::{PgBackRest, STANZA};
use tests::wait::SOON;
use tests::{Cluster, Codec, Look, Settings, process, wait_until};

/// The cluster, and what archives it.
pub struct Site {
    pub cluster: Cluster,
    pub pgbackrest: PgBackRest,
    pub barman: Barman,
    /// What compresses all three archives.
    pub codec: Option<Codec>,
    /// Barman's name of its base backup.
    pub backup: String,
    repository: Archive,
    wals: Archive,
}

/// What a fault puts in a segment's place.
pub enum Change {
    /// Nothing: these files are deleted.
    Gone(Vec<String>),
    /// Another content of this segment.
    Content(String, Vec<u8>),
    /// Other bytes in the stored file, whatever they decompress to.
    Stored(String, fn(&mut Vec<u8>)),
}

impl Site {
    /// A cluster with a base backup by each tool, load after them, and all of it archived.
    pub fn start(codec: Option<Codec>) -> Result<Self> {
        let settings = Settings::new()
            .set("pg_backstop.archive_grace", "2s")
            .set("archive_command", "false");
        let mut cluster = Cluster::start(settings)?;
        let pgbackrest = PgBackRest::new(&cluster, codec)?;
        pgbackrest.create_stanza()?;
        let barman = Barman::new(&cluster, codec)?;
        let source = format!("pgbackrest:{}", pgbackrest.archive().display());
        cluster.set("archive_command", &command(&cluster, &pgbackrest, &barman, codec))?;
        cluster.set("pg_backstop.archive_source", &source)?;
        cluster.reload()?;
        process::run(&mut pgbackrest.command("backup")?)?;
        process::run(&mut barman.command("backup", &[])?)?;
        let backup = process::run(&mut barman.command("list-backup", &["--minimal"])?)?;
        cluster.client("pgbench", &["-i", "-q", "-s", "1"])?;
        cluster.client("pgbench", &["-c", "2", "-t", "300"])?;
        let repository = Archive::of(
            pgbackrest.repository().to_owned(),
            cluster.place("originals of pgbackrest"),
        )?;
        let wals = Archive::of(barman.wals(), cluster.place("originals of barman"))?;
        let site = Self {
            cluster,
            pgbackrest,
            barman,
            codec,
            backup: backup.trim().to_owned(),
            repository,
            wals,
        };
        site.archive_now()?;
        Ok(site)
    }

    /// The `archive_command` of another cluster that archives into the same places.
    pub fn command_of(&self, cluster: &Cluster) -> Result<String> {
        let pgbackrest = self.pgbackrest.shared_with(cluster)?;
        Ok(command(&self.cluster, &pgbackrest, &self.barman, self.codec))
    }

    /// Ends the segment and waits until all three archives have it.
    pub fn archive_now(&self) -> Result<String> {
        let name = self.cluster.archive_now()?;
        wait_until("the archives to have the segment", SOON, || {
            let places = self.places(&name);
            Ok(if places.len() == 3 {
                Look::Done(())
            } else {
                Look::not_yet(format!("{places:?}"))
            })
        })?;
        Ok(name)
    }

    /// The names of the archived segments that all archives have, in order.
    pub fn segments(&self) -> Result<Vec<String>> {
        let suffix = self.suffix();
        let mut names = Vec::new();
        for entry in fs::read_dir(self.cluster.archive().path())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let name = name.strip_suffix(suffix).unwrap_or(&name).to_owned();
            if name.len() == 24 && self.places(&name).len() == 3 {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn suffix(&self) -> &'static str {
        self.codec.map_or("", Codec::suffix)
    }

    /// The content of an archived file.
    pub fn content(&self, name: &str) -> Result<Vec<u8>> {
        let bytes = self.cluster.archive().read(&format!("{name}{}", self.suffix()))?;
        self.codec.map_or(Ok(bytes.clone()), |codec| codec.decompress(&bytes))
    }

    /// Where a file is in the plain directory, in pgBackRest's repository and among Barman's, of which it may have been thrown away.
    fn places(&self, name: &str) -> Vec<(&Archive, String)> {
        let log = name.get(..16).filter(|_| name.len() == 24);
        let wals = log.unwrap_or(".");
        let all = [
            (self.cluster.archive(), find(self.cluster.archive(), ".", name)),
            (&self.repository, self.in_repository(name)),
            (&self.wals, find(&self.wals, wals, name)),
        ];
        let there = all
            .into_iter()
            .filter_map(|(archive, path)| Some((archive, path.ok()?)));
        there.collect()
    }

    fn in_repository(&self, name: &str) -> Result<String> {
        let mut directory = format!("archive/{STANZA}/{}-1", self.cluster.server().major());
        if name.len() == 24 {
            directory.push('/');
            directory.extend(name.get(..16));
        }
        find(&self.repository, &directory, name)
    }

    /// Makes a fault wherever the file is.
    pub fn make(&self, change: &Change) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        match change {
            Change::Gone(names) => {
                for name in names {
                    for (archive, path) in self.places(name) {
                        faults.push(archive.remove(&path)?);
                    }
                }
            }
            Change::Content(name, content) => {
                // Backups and timelines are told of in plain files, except in the plain directory.
                for (archive, path) in self.places(name) {
                    let plain = name.len() != 24 && !path.ends_with(self.suffix());
                    let bytes = match self.codec.filter(|_| !plain) {
                        Some(codec) => codec.compress(content)?,
                        None => content.clone(),
                    };
                    faults.push(archive.replace(&path, &bytes)?);
                }
            }
            Change::Stored(name, change) => {
                for (archive, path) in self.places(name) {
                    faults.push(archive.change(&path, change)?);
                }
            }
        }
        Ok(faults)
    }

    /// Stores another content of a segment in pgBackRest's repository as pgBackRest would have done it: under a name with the
    /// checksum of that content.
    pub fn make_as_archived(&self, name: &str, content: &[u8]) -> Result<Vec<Fault>> {
        let path = self.in_repository(name)?;
        let plain = self.cluster.place("content");
        fs::write(&plain, content)?;
        let told = process::run(process::program("sha1sum", process::OnOurEnd::Kill)?.arg(&plain))?;
        let sum = told.split(' ').next().context("sha1sum says nothing")?;
        let directory = path.rsplit_once('/').context("no directory")?.0;
        let bytes = self
            .codec
            .map_or(Ok(content.to_vec()), |codec| codec.compress(content))?;
        Ok(vec![
            self.repository.remove(&path)?,
            self.repository
                .replace(&format!("{directory}/{name}-{sum}{}", self.suffix()), &bytes)?,
        ])
    }
}

/// Everybody gets each file, or the archiver tries again.
fn command(cluster: &Cluster, pgbackrest: &PgBackRest, barman: &Barman, codec: Option<Codec>) -> String {
    let plain = match codec {
        None => cluster.archive().command(),
        Some(codec) => {
            let to = format!("\"{}/%f{}\"", cluster.archive().path().display(), codec.suffix());
            codec.shell("\"%p\"", &to)
        }
    };
    format!(
        "{plain} && {} && {}",
        pgbackrest.archive_command(),
        barman.archive_command()
    )
}

/// The path of the file that holds `name`, whatever is added to its name.
fn find(archive: &Archive, directory: &str, name: &str) -> Result<String> {
    let is_it =
        |rest: &str| rest.is_empty() || rest.starts_with('-') || matches!(rest, ".gz" | ".lz4" | ".zst" | ".bz2");
    for entry in fs::read_dir(archive.file(directory))? {
        let stored = entry?.file_name().to_string_lossy().into_owned();
        if stored.strip_prefix(name).is_some_and(is_it) {
            return Ok(format!("{directory}/{stored}"));
        }
    }
    anyhow::bail!("{name} is not in {}", archive.file(directory).display())
}
