//! A directory in an object store that is in memory: what is there after a crash, and whose it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::store::disk::put;
use crate::store::guarded::is_taken_over;

const ROOT: &str = "s3://bucket/prefix";

/// A store, and folders for what processes keep of it.
struct World {
    store: Arc<InMemory>,
    folder: PathBuf,
    opened: AtomicU64,
}

impl World {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("headwater-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        Self { store: Arc::new(InMemory::new()), folder, opened: AtomicU64::new(0) }
    }

    fn open(&self, take_over: bool, cache_bytes: u64) -> ObjectDisk {
        // Every process is on a machine of its own.
        let n = self.opened.fetch_add(1, Ordering::Relaxed);
        let cache = self.folder.join(n.to_string());
        let options = ObjectOptions { cache, cache_bytes, take_over, standby: None };
        let store: Arc<dyn ObjectStore> = self.store.clone();
        ObjectDisk::on(store, Key::from("prefix"), Path::new(ROOT), &options).expect("opens")
    }

    fn begin(&self) -> (ObjectDisk, Arc<dyn Lock>) {
        let disk = self.open(true, u64::MAX);
        let lock = disk.lock(&at("LOCK"), "1").expect("locked");
        (disk, lock)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn at(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn read(disk: &ObjectDisk, name: &str) -> Option<Vec<u8>> {
    disk.read(&at(name)).ok()
}

#[test]
fn what_was_synced_and_named_is_there_in_the_next_life() {
    let world = World::new("object-lives");
    let (disk, _lock) = world.begin();
    put(&disk, &at("FORMAT"), b"one").expect("put");
    put(&disk, &at("FORMAT"), b"two").expect("put");
    // A log: zeros ahead, then groups.
    let mut log = disk.create(&at("log/next")).expect("created");
    (0..4).for_each(|n| log.write_at(n << 18, &vec![0; 1 << 18]).expect("zeros"));
    log.sync().expect("synced");
    disk.rename(&at("log/next"), &at("log/1.log")).expect("renamed");
    disk.sync_dir(&at("log")).expect("named");
    log.write_at(0, b"group").expect("written");
    log.sync().expect("synced");
    log.write_at(5, b"unsynced").expect("written");
    // A large file, and one that nobody has named.
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    let mut run = disk.create(&at("run/1.run")).expect("created");
    run.write_at(0, &large[..1_000_000]).expect("written");
    run.write_at(1_000_000, &large[1_000_000..]).expect("written");
    run.sync().expect("synced");
    drop(run);
    disk.sync_dir(&at("run")).expect("named");
    drop(disk.create(&at("run/2.run")).expect("created"));
    disk.remove(&at("FORMAT")).expect("removed");

    let (disk, _lock) = world.begin();
    assert_eq!(read(&disk, "FORMAT").as_deref(), Some(&b"two"[..]), "its end was not synced");
    let log = read(&disk, "log/1.log").expect("there");
    assert_eq!((log.len(), &log[..6]), (1 << 20, &b"group\0"[..]));
    assert_eq!(disk.list(&at("run")).expect("listed"), ["1.run"]);
    assert_eq!(disk.list(Path::new(ROOT)).expect("listed"), ["FORMAT", "log", "run"]);
    assert!(read(&disk, "run/1.run").as_deref() == Some(&large[..]));
    let run = disk.open(&at("run/1.run")).expect("opens");
    let mut piece = [0; 10];
    run.read_at(2_000_000, &mut piece).expect("read");
    assert_eq!(piece, large[2_000_000..2_000_010]);
    assert!(run.read_at(2_999_999, &mut piece).is_err(), "beyond the end");
    // It can be read on when its name is gone.
    disk.remove(&at("run/1.run")).expect("removed");
    disk.sync_dir(&at("run")).expect("synced");
    run.read_at(5, &mut piece).expect("read");
    assert_eq!(piece, large[5..15]);
    drop(run);
    put(&disk, &at("next"), b"").expect("put");
    let mut left = vec!["something".to_owned()];
    for _ in 0..100 {
        left = disk.shared.remote.list("file").expect("listed");
        if left.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(left, Vec::<String>::new(), "nobody needs it");
}

#[test]
fn a_process_whose_directory_was_taken_over_writes_nothing() {
    let world = World::new("object-fence");
    let (first, held) = world.begin();
    put(&first, &at("a"), b"first").expect("put");
    let mut log = first.create(&at("log")).expect("created");
    log.write_at(0, b"x").expect("written");
    log.sync().expect("synced");
    first.sync_dir(Path::new(ROOT)).expect("named");

    // It shows that it lives, so that nobody takes it by mistake.
    let (second, taken) = world.begin();
    assert_eq!(read(&second, "a").as_deref(), Some(&b"first"[..]));
    log.write_at(1, b"y").expect("it is in memory");
    assert!(is_taken_over(&log.sync().expect_err("it is not ours")));
    assert!(is_taken_over(&put(&first, &at("a"), b"zombie").expect_err("it is not ours")));
    assert!(matches!(held.is_held(), Ok(false)) && matches!(taken.is_held(), Ok(true)));
    put(&second, &at("a"), b"second").expect("put");
    taken.release();
    let third = world.open(false, u64::MAX);
    let _lock = third.lock(&at("LOCK"), "1").expect("nobody has it");
    assert_eq!(read(&third, "a").as_deref(), Some(&b"second"[..]));
    assert_eq!(read(&third, "log").as_deref(), Some(&b"x"[..]));
}

#[test]
fn a_reader_sees_what_comes() {
    let world = World::new("object-reader");
    let (writer, _lock) = world.begin();
    let reader = world.open(false, u64::MAX);
    assert_eq!(reader.list(Path::new(ROOT)).expect("listed"), Vec::<String>::new());
    for round in 0..600 {
        put(&writer, &at(&format!("m/{}", round % 7)), round.to_string().as_bytes()).expect("put");
        if round % 50 == 0 || round > 590 {
            let name = format!("m/{}", round % 7);
            assert_eq!(read(&reader, &name), Some(round.to_string().into_bytes()));
        }
    }
    let journal = writer.shared.remote.list("journal").expect("listed");
    assert!(journal.len() < 600, "{} entries are kept", journal.len());
}

#[test]
fn a_small_cache_reads_everything() {
    let world = World::new("object-cache");
    let (writer, _lock) = world.begin();
    let content = |n: u32| (0..2_500_000_u32).map(|i| (i / 5 + n) as u8).collect::<Vec<u8>>();
    for n in 0..4 {
        let mut file = writer.create(&at(&format!("run/{n}"))).expect("created");
        file.write_at(0, &content(n)).expect("written");
    }
    writer.sync_dir(&at("run")).expect("named");
    for cache_bytes in [0, 3 << 20, 100 << 20] {
        let reader = world.open(false, cache_bytes);
        let mut random = SmallRng::seed_from_u64(cache_bytes);
        let files: Vec<_> = (0..4)
            .map(|n| (reader.open(&at(&format!("run/{n}"))).expect("opens"), content(n)))
            .collect();
        for _ in 0..200 {
            let (file, wanted) = &files[random.random_range(0..4)];
            let from = random.random_range(0..wanted.len());
            let to = random.random_range(from..=wanted.len().min(from + 300_000));
            let mut piece = vec![0; to - from];
            file.read_at(from as u64, &mut piece).expect("read");
            assert!(piece == wanted[from..to], "{from}..{to}");
        }
    }
}

/// A store that takes so many writes, and then does as if, as one does whose process has ended.
#[derive(Debug)]
struct Mortal {
    store: Arc<InMemory>,
    left: AtomicI64,
}

impl Mortal {
    fn lives(&self) -> bool {
        self.left.fetch_sub(1, Ordering::SeqCst) > 0
    }
}

impl std::fmt::Display for Mortal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a store in memory")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Mortal {
    async fn put_opts(
        &self,
        location: &Key,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        match self.lives() {
            true => self.store.put_opts(location, payload, opts).await,
            false => Ok(PutResult { e_tag: None, version: None }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Key,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, opts).await
    }

    async fn get_opts(
        &self,
        location: &Key,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.store.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Key>>,
    ) -> BoxStream<'static, object_store::Result<Key>> {
        match self.lives() {
            true => self.store.delete_stream(locations),
            false => locations,
        }
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> object_store::Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Key,
        to: &Key,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

/// The process ends at any of its writes: what it was told is durable is there, and of what it was
/// not told yet, all or nothing.
#[test]
fn a_process_may_end_at_any_write() {
    for least in (1..40).step_by(3) {
        let world = World::new(&format!("object-mortal-{least}"));
        let mut random = SmallRng::seed_from_u64(least as u64);
        let mut twin = Twin::default();
        for _life in 0..3 {
            let cache = world.folder.join(random.random::<u64>().to_string());
            let options = ObjectOptions { cache, take_over: true, ..ObjectOptions::default() };
            let left = AtomicI64::new(least + random.random_range(2..6));
            let mortal = Arc::new(Mortal { store: world.store.clone(), left });
            let store: Arc<dyn ObjectStore> = mortal.clone();
            let disk = ObjectDisk::on(store, Key::from("prefix"), Path::new(ROOT), &options);
            let disk = disk.expect("opens");
            let lock = disk.lock(&at("LOCK"), "1").expect("locked");
            let mut before = twin.clone();
            while mortal.left.load(Ordering::SeqCst) > 0 {
                before = twin.clone();
                act(&disk, &mut twin, &mut random);
            }
            drop((lock, disk));
            let (after, _lock) = world.begin();
            let names = after.list(&at("d")).unwrap_or_default();
            for name in names.iter().chain(before.0.keys()).chain(twin.0.keys()) {
                let found = read(&after, &format!("d/{name}"));
                let (old, new) = (before.0.get(name), twin.0.get(name));
                // A log that is written in pieces may have some of them.
                let is_log = old.is_none() && found.as_ref().is_some_and(|f| f.len() >= 400_000);
                let known = found.as_ref() == old || found.as_ref() == new || is_log;
                assert!(known, "{least}: {name}");
            }
            let all = names.into_iter().map(|name| {
                let content = read(&after, &format!("d/{name}")).expect("it is there");
                (name, content)
            });
            twin = Twin(all.collect());
        }
    }
}

/// What a disk would have after a crash, at least; names that were not synced may be there or not.
#[derive(Default, Clone)]
struct Twin(BTreeMap<String, Vec<u8>>);

#[test]
fn random_work_survives_crashes() {
    let mut random = SmallRng::seed_from_u64(7);
    for round in 0..6 {
        let world = World::new(&format!("object-random-{round}"));
        let mut twin = Twin::default();
        for _life in 0..4 {
            let (disk, _lock) = world.begin();
            let names = disk.list(&at("d")).unwrap_or_default();
            assert_eq!(names, twin.0.keys().cloned().collect::<Vec<_>>());
            for (name, wanted) in &twin.0 {
                let found = read(&disk, &format!("d/{name}")).expect("there");
                assert!(found == *wanted, "{name}: {} of {}", found.len(), wanted.len());
            }
            for _ in 0..random.random_range(1..60) {
                act(&disk, &mut twin, &mut random);
            }
        }
    }
}

/// One thing that is durable when it returns.
fn act(disk: &ObjectDisk, twin: &mut Twin, random: &mut SmallRng) {
    let name = format!("{}", random.random_range(0..8));
    let other = format!("{}", random.random_range(0..8));
    let (path, to) = (at(&format!("d/{name}")), at(&format!("d/{other}")));
    let length = match random.random_range(0..4) {
        0 => random.random_range(200_000..900_000),
        _ => random.random_range(0..2000),
    };
    let bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
    match random.random_range(0..5) {
        0 => {
            put(disk, &path, &bytes).expect("put");
            twin.0.insert(name, bytes);
        }
        1 if twin.0.contains_key(&name) => {
            disk.remove(&path).expect("removed");
            disk.sync_dir(&at("d")).expect("synced");
            twin.0.remove(&name);
        }
        2 if name != other && twin.0.contains_key(&name) => {
            disk.rename(&path, &to).expect("renamed");
            disk.sync_dir(&at("d")).expect("synced");
            let content = twin.0.remove(&name).expect("it is there");
            twin.0.insert(other, content);
        }
        3 if !twin.0.contains_key(&name) => {
            // It is named first, and written then, as a log is.
            let mut file = disk.create(&path).expect("created");
            (0..8).for_each(|n| file.write_at(n * 50_000, &vec![0; 50_000]).expect("zeros"));
            file.sync().expect("synced");
            disk.sync_dir(&at("d")).expect("named");
            let mut wanted = vec![0; 400_000];
            for _ in 0..3 {
                let at = random.random_range(0..410_000);
                let piece: Vec<u8> = (0..random.random_range(1..500)).map(|i| i as u8).collect();
                file.write_at(at as u64, &piece).expect("written");
                file.sync().expect("synced");
                wanted.resize(wanted.len().max(at + piece.len()), 0);
                wanted[at..at + piece.len()].copy_from_slice(&piece);
            }
            twin.0.insert(name, wanted);
        }
        _ if !twin.0.contains_key(&name) => {
            let mut file = disk.create(&path).expect("created");
            for (n, piece) in bytes.chunks(100_000).enumerate() {
                file.write_at(n as u64 * 100_000, piece).expect("written");
            }
            file.sync().expect("synced");
            drop(file);
            disk.sync_dir(&at("d")).expect("named");
            twin.0.insert(name, bytes);
        }
        _ => {}
    }
}
