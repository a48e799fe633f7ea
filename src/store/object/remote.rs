//! Requests to an object store, from threads that wait for them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesOrdered;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{
    Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use tokio::runtime::Runtime;

use crate::store::disk::read_at;

/// Bytes of an object that is sent whole; larger ones go in parts of this size.
const PART_BYTES: usize = 8 << 20;

/// Parts, objects and pieces that are on their way at the same time.
const AT_ONCE: usize = 8;

/// What was asked of a store since this process has opened it.
#[derive(Debug, Default)]
pub struct Requests {
    /// Writes: objects and parts of large ones; the dear requests.
    pub(super) puts: AtomicU64,
    pub(super) gets: AtomicU64,
    /// Of a thousand names each, as they are billed.
    pub(super) lists: AtomicU64,
    pub(super) deletes: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    /// Entries of the journal, and the microseconds that they took.
    pub(super) entries: AtomicU64,
    pub(super) entry_us: AtomicU64,
}

impl Requests {
    /// Requests by what they did, since the store was opened.
    pub fn by_kind(&self) -> [(&'static str, u64); 4] {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("put", of(&self.puts)),
            ("get", of(&self.gets)),
            ("list", of(&self.lists)),
            ("delete", of(&self.deletes)),
        ]
    }

    /// Bytes that were sent, and that were received.
    pub fn bytes(&self) -> [(&'static str, u64); 2] {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("sent", of(&self.sent)), ("received", of(&self.received))]
    }

    /// What a durable write has waited for on average; `None` before the first one.
    pub fn write_time(&self) -> Option<Duration> {
        let entries = self.entries.load(Ordering::Relaxed);
        let us = self.entry_us.load(Ordering::Relaxed).checked_div(entries)?;
        Some(Duration::from_micros(us))
    }
}

fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// An object store, below a prefix.
#[derive(Debug)]
pub(super) struct Remote {
    inner: Arc<Inner>,
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    requests: Arc<Requests>,
}

impl Remote {
    pub(super) fn new(store: Arc<dyn ObjectStore>, prefix: Key) -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("object-store").enable_all().build()?;
        let inner = Arc::new(Inner { store, prefix, requests: Arc::default() });
        Ok(Self { inner, runtime: Some(runtime) })
    }

    pub(super) fn requests(&self) -> &Arc<Requests> {
        &self.inner.requests
    }

    /// Waits for a request, on whatever thread this is.
    fn wait<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> io::Result<T> {
        let ended = || io::Error::other("the object store is closed");
        let runtime = self.runtime.as_ref().ok_or_else(ended)?;
        let (answer, told) = sync_channel(1);
        runtime.spawn(async move {
            // Whoever asked waits for it.
            let _ = answer.send(request.await);
        });
        told.recv().map_err(|_| ended())?.map_err(io_error)
    }

    /// Does something that nobody waits for.
    fn behind(&self, request: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(request);
        }
    }

    /// Makes an object; false when there is one of this name.
    pub(super) fn put_new(&self, name: &str, bytes: Bytes) -> io::Result<bool> {
        let (inner, key) = (Arc::clone(&self.inner), self.key(name));
        let put = async move {
            count(&inner.requests.puts, 1);
            count(&inner.requests.sent, bytes.len());
            let mode = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            inner.store.put_opts(&key, PutPayload::from_bytes(bytes), mode).await
        };
        match self.wait(put) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes an object, or replaces it.
    pub(super) fn put(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let (inner, key) = (Arc::clone(&self.inner), self.key(name));
        let put = async move {
            count(&inner.requests.puts, 1);
            count(&inner.requests.sent, bytes.len());
            inner.store.put(&key, PutPayload::from_bytes(bytes)).await
        };
        self.wait(put).map(drop)
    }

    /// Makes an object of so many bytes of a file; a large one in parts.
    pub(super) fn upload(&self, name: &str, file: &Arc<File>, length: u64) -> io::Result<()> {
        if length <= PART_BYTES as u64 {
            return self.put(name, read_part(file, 0..length)?.into());
        }
        let (inner, key) = (Arc::clone(&self.inner), self.key(name));
        count(&inner.requests.puts, 1);
        let start = async move { inner.store.put_multipart(&key).await };
        let mut upload = self.wait(start)?;
        let mut sent = Ok(());
        let mut at = 0;
        while sent.is_ok() && at < length {
            let mut parts = Vec::new();
            while parts.len() < AT_ONCE && at < length {
                let end = length.min(at + PART_BYTES as u64);
                parts.push(at..end);
                at = end;
            }
            (upload, sent) = self.send_parts(upload, file, parts)?;
        }
        match sent {
            Ok(()) => self.wait(async move { upload.complete().await }).map(drop),
            Err(error) => {
                // Parts of what was not completed are billed.
                drop(self.wait(async move { upload.abort().await }));
                Err(error)
            }
        }
    }

    fn send_parts(
        &self,
        mut upload: Box<dyn MultipartUpload>,
        file: &Arc<File>,
        parts: Vec<Range<u64>>,
    ) -> io::Result<(Box<dyn MultipartUpload>, io::Result<()>)> {
        let mut sending = FuturesOrdered::new();
        for part in parts {
            let bytes = match read_part(file, part) {
                Ok(bytes) => bytes,
                Err(error) => return Ok((upload, Err(error))),
            };
            count(&self.inner.requests.puts, 1);
            count(&self.inner.requests.sent, bytes.len());
            sending.push_back(upload.put_part(PutPayload::from(bytes)));
        }
        let sent = self.wait(async move { sending.try_collect::<Vec<()>>().await });
        Ok((upload, sent.map(drop)))
    }

    /// The whole of an object.
    pub(super) fn get(&self, name: &str) -> io::Result<Bytes> {
        let (inner, key) = (Arc::clone(&self.inner), self.key(name));
        self.wait(async move { inner.get(&key).await })
    }

    /// A part of an object.
    pub(super) fn get_range(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        let (inner, key) = (Arc::clone(&self.inner), self.key(name));
        let get = async move {
            count(&inner.requests.gets, 1);
            let bytes = inner.store.get_range(&key, range).await?;
            count(&inner.requests.received, bytes.len());
            Ok(bytes)
        };
        self.wait(get)
    }

    /// Several objects, in this order; `None` for those that are gone.
    pub(super) fn get_all(&self, names: Vec<String>) -> io::Result<Vec<Option<Bytes>>> {
        let inner = Arc::clone(&self.inner);
        let keys: Vec<Key> = names.iter().map(|name| self.key(name)).collect();
        let gets = keys.into_iter().map(move |key| {
            let inner = Arc::clone(&inner);
            async move {
                match inner.get(&key).await {
                    Err(Error::NotFound { .. }) => Ok(None),
                    got => got.map(Some),
                }
            }
        });
        let gets: Vec<_> = gets.collect();
        self.wait(futures::stream::iter(gets).buffered(AT_ONCE * 4).try_collect())
    }

    /// Names of the objects below a folder, in order, without that of the folder.
    pub(super) fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let (inner, prefix) = (Arc::clone(&self.inner), self.key(folder));
        let list = async move {
            count(&inner.requests.lists, 1);
            let all = inner.store.list(Some(&prefix));
            let all: Vec<_> = all.try_collect().await?;
            count(&inner.requests.lists, all.len() / 1000);
            let names = all.iter().filter_map(|o| o.location.filename().map(str::to_owned));
            let mut names: Vec<String> = names.collect();
            names.sort_unstable();
            Ok(names)
        };
        self.wait(list)
    }

    /// Removes objects, when it comes to it; who is not removed is in nobody's way.
    pub(super) fn remove_behind(&self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let inner = Arc::clone(&self.inner);
        let keys: Vec<Result<Key, Error>> = names.iter().map(|name| Ok(self.key(name))).collect();
        self.behind(async move {
            count(&inner.requests.deletes, keys.len().div_ceil(1000));
            let keys = futures::stream::iter(keys).boxed();
            let mut removed = inner.store.delete_stream(keys);
            while let Some(done) = removed.next().await {
                if let Err(error) = done
                    && !matches!(error, Error::NotFound { .. })
                {
                    tracing::debug!(%error, "an object that nobody needs stays");
                }
            }
        });
    }

    /// Removes an object, and waits for it.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let (inner, key) = (Arc::clone(&self.inner), self.key(name));
        self.wait(async move {
            count(&inner.requests.deletes, 1);
            inner.store.delete(&key).await
        })
    }

    fn key(&self, name: &str) -> Key {
        let parts = self.inner.prefix.parts().map(|part| part.as_ref().to_owned());
        Key::from_iter(parts.chain(name.split('/').map(str::to_owned)))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // It may be dropped by a thread that must not wait.
            runtime.shutdown_background();
        }
    }
}

impl Inner {
    async fn get(&self, key: &Key) -> Result<Bytes, Error> {
        count(&self.requests.gets, 1);
        let bytes = self.store.get(key).await?.bytes().await?;
        count(&self.requests.received, bytes.len());
        Ok(bytes)
    }
}

fn read_part(file: &File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    read_at(file, range.start, &mut bytes)?;
    Ok(bytes)
}

fn io_error(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::AlreadyExists { .. } | Error::Precondition { .. } => io::ErrorKind::AlreadyExists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    // The reason stands in the chain of causes.
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let reason = inner.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = inner.source();
    }
    io::Error::new(kind, text)
}
