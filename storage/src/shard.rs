//! What all logs of a shard share, and the shard's storage as the broker sees it.

use crate::cache::{CachedGroup, TailCache};
use crate::config::{LogConfig, StorageConfig};
use crate::counters::{Counters, StorageMetrics};
use crate::dirs::Dirs;
use crate::error::StorageError;
use crate::files::FileCache;
use crate::flusher::{self, Flusher};
use crate::format::checkpoint::JournalEnd;
use crate::format::journal_file::JournalFileHeader;
use crate::ids::{HashLogId, LogId};
use crate::journal::ring::Ring;
use crate::journal::{Effect, Group, Journal, writer};
use crate::log::Log;
use crate::paths;
use crate::producers::ProducerRoom;
use crate::progress::Progress;
use crate::quarantine;
use crate::recovery::{Recovered, RecoveredLog};
use crate::segment::{IndexCache, Syncs, Turns};
use crate::space::DiskSpace;
use corelog_io::sync::{Permit, Semaphore};
use corelog_io::{Instant, Queue, fs, sleep, spawn, timeout, wall_clock_ms};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::{Rc, Weak};

/// Shared by all logs of a shard. Owns no log.
pub struct Shard {
    pub config: StorageConfig,
    pub generation: u64,
    pub journal: Journal,
    pub cache: TailCache,
    pub files: FileCache,
    pub dirs: Dirs,
    pub indexes: IndexCache,
    pub space: DiskSpace,
    pub flusher: Flusher,
    pub segment_writes: Turns,
    pub segment_syncs: Syncs,
    pub counters: Counters,
    pub producers: Rc<ProducerRoom>,
    pub progress: Progress,
    /// Checkpoints of this generation: the number of the last that was begun, and of the last that is durable.
    pub checkpoints_begun: Cell<u64>,
    pub checkpoints_written: Cell<u64>,
    /// How far the journals of former generations were taken over.
    pub former_ends: Vec<JournalEnd>,
    /// Bytes of disk that the process's other shards have promised.
    promised_elsewhere: Cell<u64>,
    /// When the first group went into the journal's current file.
    journal_file_begun: Cell<Instant>,
    /// It is to end: nothing waits for space any more, which may never come.
    closing: Cell<bool>,
    closed: Cell<bool>,
}

impl Shard {
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Waits in line until an entry of `span` bytes may be pushed, of which `cached` are kept in memory until they are in a
    /// segment. The permit is held while it is. `refuse`: why it may not be pushed at all.
    pub async fn admit<E: From<StorageError>>(
        &self,
        span: usize,
        cached: usize,
        refuse: impl Fn() -> Result<(), E>,
    ) -> Result<Permit, E> {
        match self.journal.gate.try_acquire(1) {
            Some(turn) if self.may_push(span, cached, &refuse)? => Ok(turn),
            // Boxed: it is rare, and would make what is moved for every append larger.
            turn => Box::pin(self.wait_to_push(turn, span, cached, refuse)).await,
        }
    }

    async fn wait_to_push<E: From<StorageError>>(
        &self,
        turn: Option<Permit>,
        span: usize,
        cached: usize,
        refuse: impl Fn() -> Result<(), E>,
    ) -> Result<Permit, E> {
        let turn = match turn {
            Some(turn) => turn,
            None => self.journal.gate.acquire(1).await,
        };
        loop {
            let room = self.journal.room.listen();
            // Looked at again and again: who waits for space would stand in the way of who makes some.
            if self.may_push(span, cached, &refuse)? {
                return Ok(turn);
            }
            room.await;
        }
    }

    /// Whether there is room in the journal and in memory. Where it is memory that is short, some is being made.
    fn may_push<E: From<StorageError>>(
        &self,
        span: usize,
        cached: usize,
        refuse: impl Fn() -> Result<(), E>,
    ) -> Result<bool, E> {
        if let Some(failure) = self.journal.failure() {
            return Err(failure.into());
        }
        if self.is_closed() {
            return Err(StorageError::Closed.into());
        }
        refuse()?;
        if !self.journal.has_room(span) {
            return Ok(false);
        }
        if cached == 0 || self.cache.make_room(cached as u64) {
            return Ok(true);
        }
        self.segment_writes.hurry();
        self.flusher.memory_is_short();
        Ok(false)
    }

    /// Whether there is room left, in journal and memory, though nothing can be written to segments: the rest is for what
    /// frees space.
    pub fn has_room_to_spare(&self) -> bool {
        self.journal.ring.has_room_to_spare() && self.cache.make_room(self.config.tail_cache_bytes / 8)
    }

    /// Bytes that may be in no segment yet.
    pub fn dirty_wanted(&self) -> u64 {
        self.cache.dirty_wanted(self.flusher.dirty_logs.get())
    }

    /// The journal went on to another file, or waits for one that is free.
    pub fn journal_file_is_full(&self, went_on: bool) {
        let ring = &self.journal.ring;
        if went_on {
            let took = self.journal_file_begun.replace(corelog_io::now()).elapsed();
            self.segment_writes.keep_up_with(ring.file_bytes(), took);
        }
        if ring.files_left() == 0 {
            self.segment_writes.hurry();
        }
        self.flusher.file_is_full();
    }

    /// A journal group is durable: its logs learn of it, then those who wait for it.
    pub fn settle(&self, group: Group) {
        self.counters.note_group(group.len);
        self.space.note_written(group.len);
        let mut logs: Vec<Weak<Log>> = Vec::with_capacity(group.effects.len());
        let now_ms = wall_clock_ms();
        for (log, effect) in group.effects {
            if let Some(log) = log.upgrade() {
                log.settle(group.sequence, effect, now_ms);
            }
            if effect == Effect::Appended {
                logs.push(log);
            }
        }
        if !logs.is_empty() {
            self.cache.add(CachedGroup { sequence: group.sequence, bytes: group.len, logs });
        }
        self.progress.tell();
        group.completion.complete(Ok(()));
        if self.cache.wants_clean(self.dirty_wanted()) {
            self.flusher.memory_is_short();
        }
        self.flusher.group_is_durable();
    }
}

/// The storage of one shard: its logs, its journal and the tasks that serve them.
///
/// Life: [`crate::read_journals`] on every core, results sent to the owning shards, then [`ShardStorage::open`];
/// [`ShardStorage::log`] for each partition of the shard, [`ShardStorage::settle_recovery`] when all are claimed;
/// [`ShardStorage::close`]. Lives on one core.
pub struct ShardStorage {
    pub(crate) shard: Rc<Shard>,
    logs: RefCell<HashMap<LogId, Rc<Log>, HashLogId>>,
    /// Found at start and not claimed yet.
    recovered: RefCell<BTreeMap<LogId, RecoveredLog>>,
    pub(crate) recovery_settled: Cell<bool>,
    pub(crate) former_generations_gone: Cell<bool>,
    /// Shards, from 0 on, that are known to have begun this generation.
    pub(crate) shards_begun: Cell<usize>,
    /// Checkpoints are written one at a time.
    pub(crate) checkpointing: Semaphore,
}

impl ShardStorage {
    /// Starts a new generation of the shard's journal and the tasks that serve it. `recovered` is what
    /// [`crate::read_journals`] found of this shard's logs, on all cores.
    /// On a disk without space it opens too: it serves what is there, and takes appends when there is space.
    pub async fn open(
        mut config: StorageConfig,
        recovered: Recovered,
    ) -> Result<Rc<ShardStorage>, StorageError> {
        let dir = paths::journal_dir(&config.data_dir);
        if let Err(rule) = config.check() {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, rule);
            return Err(StorageError::io("configure", &config.data_dir)(source));
        }
        fs::create_dir_all(&dir).await.map_err(StorageError::io("create", &dir))?;
        fs::sync_dir(&config.data_dir).await.map_err(StorageError::io("sync", &config.data_dir))?;
        // The name of the data directory and of what was created above it. What is not ours to read is not ours.
        for parent in config.data_dir.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
            if fs::sync_dir(parent).await.is_err() {
                break;
            }
        }
        let generation = recovered.next_generation;
        config.fit_descriptors(fs::descriptors_max());
        let reserve_bytes = config.reserve_bytes * config.shards as u64;
        let salt = corelog_io::random_u64();
        let header = JournalFileHeader { generation, shard: config.shard as u32, salt, first_sequence: 1 };
        let ring = Ring::new(dir, header, config.journal_file_bytes, config.journal_files);
        let shard = Rc::new(Shard {
            generation,
            journal: Journal::new(&config, generation, salt, ring),
            cache: TailCache::new(config.tail_cache_bytes),
            files: FileCache::new(config.files_open_max),
            dirs: Dirs::new(config.data_dir.clone()),
            indexes: IndexCache::new(config.index_cache_bytes),
            space: DiskSpace::new(
                &config.data_dir,
                config.min_free_bytes,
                (reserve_bytes, config.shard == 0),
                config.shards,
            ),
            promised_elsewhere: Cell::new(0),
            former_ends: recovered.ends,
            flusher: Flusher::default(),
            segment_writes: Turns::default(),
            segment_syncs: Syncs::new(config.sync_together_from),
            counters: Counters::default(),
            producers: ProducerRoom::new(config.producer_ids_room),
            progress: Progress::default(),
            checkpoints_begun: Cell::new(0),
            checkpoints_written: Cell::new(0),
            journal_file_begun: Cell::new(corelog_io::now()),
            closing: Cell::new(false),
            closed: Cell::new(false),
            config,
        });
        let storage = Rc::new(ShardStorage {
            shard: Rc::clone(&shard),
            logs: RefCell::default(),
            recovered: RefCell::new(recovered.logs),
            recovery_settled: Cell::new(false),
            former_generations_gone: Cell::new(generation == 1),
            shards_begun: Cell::new(0),
            checkpointing: Semaphore::new(1),
        });
        storage.look_at_space().await;
        match writer::begin(&shard).await {
            Ok(_) => {}
            // The writers try again.
            Err(error) if error.is_storage_full() => {
                tracing::warn!(%error, "the disk is full: what is there is served, appends are refused until there is space");
                shard.space.give_up_reserve().await;
            }
            Err(error) => return Err(error),
        }
        for _ in 0..shard.config.groups_in_flight {
            spawn(Queue::Produce, writer::write_groups(Rc::clone(&shard))).detach();
        }
        spawn(Queue::Background, flusher::run(Rc::clone(&storage))).detach();
        spawn(Queue::Background, prepare_ring(Rc::clone(&shard))).detach();
        spawn(Queue::Background, mark_idle(Rc::clone(&shard))).detach();
        spawn(Queue::Background, poll(Rc::downgrade(&storage))).detach();
        Ok(storage)
    }

    /// The log `id`, made if it is not open yet. No I/O. `name`: the topic's, for the directory; the same each time.
    pub fn log(&self, id: LogId, name: &str, config: LogConfig) -> Rc<Log> {
        if let Some(log) = self.opened(id) {
            return log;
        }
        let recovered = self.recovered.borrow_mut().remove(&id).unwrap_or_default();
        let recovered_bytes = recovered.dirty_bytes();
        let log = Log::new(Rc::clone(&self.shard), id, name, config, recovered);
        // What is put aside already is not kept in memory.
        let dirty = if log.dirty_bytes() > 0 { recovered_bytes } else { 0 };
        if dirty > 0 {
            let logs = vec![Rc::downgrade(&log)];
            self.shard.cache.add(CachedGroup { sequence: 0, bytes: dirty, logs });
        }
        self.logs.borrow_mut().insert(id, Rc::clone(&log));
        log
    }

    /// The log `id`, if it is open.
    pub fn opened(&self, id: LogId) -> Option<Rc<Log>> {
        self.logs.borrow().get(&id).cloned()
    }

    /// Logs with state found at start that nobody has asked for yet.
    pub fn unclaimed(&self) -> Vec<LogId> {
        self.recovered.borrow().keys().copied().collect()
    }

    /// The broker has claimed all logs that exist: what is left belongs to deleted topics, and their state is forgotten.
    /// From now on the former generations' journals are emptied into segments and removed.
    pub fn settle_recovery(&self) {
        let aside: Vec<LogId> = {
            let mut forgotten = self.recovered.borrow_mut();
            let put_aside = |(id, log): (&LogId, &RecoveredLog)| log.put_aside.map(|_| *id);
            let aside = forgotten.iter().filter_map(put_aside).collect();
            forgotten.retain(|_, log| log.forget_state());
            aside
        };
        let (data_dir, generation) = (self.shard.config.data_dir.clone(), self.shard.generation);
        let sweeps = self.shard.config.shard == 0;
        spawn(Queue::Background, async move {
            if sweeps && let Err(error) = quarantine::sweep(&data_dir, generation).await {
                tracing::warn!(%error, "what was never put aside to the end stays");
            }
            for id in aside {
                if let Err(error) = quarantine::remove(&data_dir, id, u64::MAX).await {
                    tracing::warn!(log = %id, %error, "what was put aside of a deleted log stays");
                }
            }
        })
        .detach();
        self.recovery_settled.set(true);
        self.shard.flusher.recovery_is_settled();
    }

    /// Takes the log out of the storage, here and now; what is returned removes its files. Appends and reads under way
    /// fail with [`StorageError::LogDeleted`]. Kafka's file.delete.delay.ms is the caller's affair.
    pub fn delete(&self, id: LogId) -> impl Future<Output = Result<(), StorageError>> + use<> {
        let log = self.logs.borrow_mut().remove(&id);
        self.recovered.borrow_mut().remove(&id);
        log.iter().for_each(|log| log.end());
        async move {
            match log {
                Some(log) => log.remove_files().await,
                None => Ok(()),
            }
        }
    }

    /// Every open log.
    pub fn logs(&self) -> Vec<Rc<Log>> {
        self.logs.borrow().values().cloned().collect()
    }

    /// Tells which logs' durable ends moved, of those registered.
    pub fn progress(&self) -> &Progress {
        &self.shard.progress
    }

    /// Completes when everything appended so far is durable.
    pub async fn sync(&self) -> Result<(), StorageError> {
        self.shard.journal.barrier().await
    }

    /// Writes everything appended so far to segments, and a checkpoint. Whether nothing that a start reads in journals is
    /// older than that.
    pub async fn empty_journal(self: &Rc<Self>) -> Result<bool, StorageError> {
        // What is appended from here on is in a later group.
        self.sync().await?;
        flusher::flush_everything(self).await?;
        Ok(self.former_generations_gone.get())
    }

    /// Writes everything to segments and a checkpoint, then ends the tasks: a restart has nothing to replay. On a disk
    /// without space it has: what was acknowledged is in the journal.
    pub async fn close(self: &Rc<Self>) -> Result<(), StorageError> {
        self.shard.closing.set(true);
        self.shard.segment_writes.close();
        self.shard.flusher.wake();
        let outcome = match self.sync().await {
            Ok(()) => flusher::flush_everything(self).await,
            Err(error) => Err(error),
        };
        self.shard.closed.set(true);
        self.shard.journal.fail(StorageError::Closed);
        self.shard.flusher.wake();
        self.shard.journal.ring.wants_prepare.notify_one();
        match outcome {
            Err(error) if error.is_storage_full() => {
                tracing::warn!(%error, "the disk is full: the next start replays the journal");
                Ok(())
            }
            outcome => outcome,
        }
    }

    pub fn metrics(&self) -> StorageMetrics {
        StorageMetrics {
            cached_bytes: self.shard.cache.bytes(),
            dirty_bytes: self.dirty_bytes(),
            logs: self.logs.borrow().len() as u64,
            files_open: self.shard.files.len() as u64,
            disk_full: self.shard.space.is_full(),
            disk_free_bytes: self.shard.space.available(),
            ..self.shard.counters.get()
        }
    }

    /// Descriptors that this shard's storage comes to use ([`StorageConfig::descriptors_kept`]).
    pub fn descriptors_kept(&self) -> u64 {
        self.shard.config.descriptors_kept()
    }

    /// Bytes of disk that what was acknowledged may still come to take.
    pub fn promised_bytes(&self) -> u64 {
        self.dirty_bytes() + self.shard.journal.ring.growth_needed()
    }

    /// What all other shards on this disk answer to [`ShardStorage::promised_bytes`]: the disk is one, and so is what is
    /// kept free of it.
    pub fn set_promised_elsewhere(&self, bytes: u64) {
        self.shard.promised_elsewhere.set(bytes);
    }

    fn dirty_bytes(&self) -> u64 {
        self.logs.borrow().values().map(|log| log.dirty_bytes()).sum()
    }

    /// What checkpoints must say of former journals, as long as there are any.
    pub(crate) fn former_ends(&self) -> &[JournalEnd] {
        if self.former_generations_gone.get() { &[] } else { &self.shard.former_ends }
    }

    async fn look_at_space(&self) {
        match fs::space(&self.shard.config.data_dir).await {
            Ok(space) => {
                let missing = self.shard.space.reserve_missing().await.unwrap_or(0);
                let promised = self.promised_bytes() + self.shard.promised_elsewhere.get();
                self.shard.space.note(space.available, promised, missing);
                if self.shard.space.is_full() {
                    // Some of those who wait are to wait no longer.
                    self.shard.journal.room.notify_all();
                }
            }
            Err(error) => tracing::warn!(%error, "cannot ask for the free space of the data directory"),
        }
        if let Err(error) = self.shard.space.keep_reserve().await {
            tracing::debug!(%error, "no space is kept for the journal");
        }
    }
}

/// Prepares journal space ahead of the head, whenever asked.
async fn prepare_ring(shard: Rc<Shard>) {
    while !shard.is_closed() {
        shard.journal.ring.wants_prepare.notified().await;
        if shard.space.is_used_up() {
            // What is left goes to groups, and not to zeros.
            continue;
        }
        // What runs when the shard stops is cancelled with its core.
        match shard.journal.ring.prepare().await {
            Ok(()) => {}
            // Clients' appends stop here, so that what is left of the file is for entries that free space.
            Err(error) if error.is_storage_full() => shard.space.note_full(),
            Err(error) if shard.is_closed() || error.is_cancelled() => drop(error),
            // The groups' own writes meet the same disk and decide.
            Err(error) => tracing::warn!(%error, "cannot prepare journal space"),
        }
    }
}

/// Puts a marker behind the last groups when the journal rests, so that a later recovery knows they were durable.
async fn mark_idle(shard: Rc<Shard>) {
    while !shard.is_closed() {
        shard.flusher.durable_groups.notified().await;
        sleep(shard.config.marker_delay).await;
        if shard.journal.wants_marker() {
            shard.journal.push_marker();
        } else {
            // Busy: look again after the next group.
            continue;
        }
    }
}

/// Looks at free space and expires producers, for as long as the storage lives.
async fn poll(storage: Weak<ShardStorage>) {
    let mut rounds: u64 = 0;
    loop {
        let Some(shard) = storage.upgrade().map(|s| Rc::clone(&s.shard)) else { return };
        let is_early = timeout(shard.config.space_poll, shard.space.look.notified()).await.is_ok();
        drop(shard);
        let Some(storage) = storage.upgrade().filter(|s| !s.shard.is_closed()) else { return };
        storage.look_at_space().await;
        if is_early {
            continue;
        }
        let waiting = fs::waiting_for_descriptors();
        if waiting > 0 && rounds.is_multiple_of(10) {
            tracing::warn!(
                waiting,
                limit = fs::descriptors_max(),
                "as many files and connections are open as may be: storage waits for one; raise RLIMIT_NOFILE (LimitNOFILE= in a \
                 systemd unit)"
            );
        }
        rounds += 1;
        if rounds.is_multiple_of(60) {
            let now_ms = wall_clock_ms();
            for log in storage.logs() {
                log.expire_producers(now_ms);
            }
        }
    }
}
