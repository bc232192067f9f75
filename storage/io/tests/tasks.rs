//! Tasks, time and mailboxes behave alike in both worlds.

mod common;

use common::in_both_worlds;
use corelog_io::sync::{Event, Notify, Semaphore, bounded, oneshot};
use corelog_io::{
    Queue, Received, available_cpus, core, cores, mesh, now, random_secret, random_u64, remote, run_glommio,
    sleep, sleep_until, spawn, timeout, wall_clock_ms, yield_if_needed, yield_now,
};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[test]
fn timers_fire_in_order_and_not_early() {
    in_both_worlds(1, |_| async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let start = now();
        let tasks: Vec<_> = [30u32, 10, 20]
            .into_iter()
            .map(|ms| {
                let order = Rc::clone(&order);
                spawn(Queue::Control, async move {
                    sleep(MS * ms).await;
                    assert!(now() - start >= MS * ms, "woken early");
                    order.borrow_mut().push(ms);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        assert_eq!(*order.borrow(), [10, 20, 30]);
        let t = now() + MS * 3;
        sleep_until(t).await;
        assert!(now() >= t);
        sleep_until(t).await;
        assert!(start.elapsed() >= MS * 33);
    });
}

#[test]
fn a_timeout_ends_what_takes_too_long() {
    in_both_worlds(1, |_| async {
        assert_eq!(timeout(MS * 500, async { 7 }).await, Ok(7));
        let dropped = Rc::new(Cell::new(false));
        let guard = OnDrop(Rc::clone(&dropped));
        let slow = async move {
            let _guard = guard;
            sleep(Duration::from_secs(60)).await;
        };
        assert!(timeout(MS * 5, slow).await.is_err());
        assert!(dropped.get());
    });
}

struct OnDrop(Rc<Cell<bool>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[test]
fn a_dropped_task_is_cancelled_a_detached_one_runs_on() {
    in_both_worlds(1, |_| async {
        let cancelled = Rc::new(Cell::new(false));
        let guard = OnDrop(Rc::clone(&cancelled));
        let task = spawn(Queue::Fetch, async move {
            let _guard = guard;
            sleep(Duration::from_secs(60)).await;
            panic!("a cancelled task ran on");
        });
        yield_now().await;
        drop(task);
        sleep(MS * 5).await;
        assert!(cancelled.get(), "a cancelled task keeps what it holds");

        let done = Rc::new(Cell::new(false));
        let flag = Rc::clone(&done);
        spawn(Queue::Background, async move {
            sleep(MS * 5).await;
            flag.set(true);
        })
        .detach();
        sleep(MS * 100).await;
        assert!(done.get(), "a detached task was cancelled");
        assert_eq!(spawn(Queue::Produce, async { 5 }).await, 5);
    });
}

#[test]
fn clocks_and_randomness() {
    in_both_worlds(2, |world| async move {
        assert_eq!((core(), cores()), (world.ctx.core, 2));
        let (a, wall) = (now(), wall_clock_ms());
        sleep(MS * 20).await;
        assert!(now() - a >= MS * 20);
        assert!(wall_clock_ms() - wall >= 19);
        let draws: std::collections::BTreeSet<u64> = (0..1000).map(|_| random_u64()).collect();
        assert_eq!(draws.len(), 1000);
        let secrets: std::collections::BTreeSet<[u8; 21]> = (0..1000).map(|_| random_secret()).collect();
        assert_eq!(secrets.len(), 1000);
        assert!((0..21).all(|at| secrets.iter().any(|secret| secret[at] != 0)), "a byte is never filled");
    });
}

#[test]
fn a_busy_task_lets_others_run() {
    in_both_worlds(1, |_| async {
        let stop = Rc::new(Cell::new(false));
        let flag = Rc::clone(&stop);
        let busy = spawn(Queue::Background, async move {
            while !flag.get() {
                yield_if_needed().await;
            }
        });
        sleep(MS * 3).await;
        stop.set(true);
        busy.await;
    });
}

#[test]
fn an_event_wakes_all_who_listened() {
    in_both_worlds(1, |_| async {
        let event = Rc::new(Event::new());
        let woken = Rc::new(Cell::new(0));
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (listener, woken) = (event.listen(), Rc::clone(&woken));
                spawn(Queue::Fetch, async move {
                    listener.await;
                    woken.set(woken.get() + 1);
                })
            })
            .collect();
        yield_now().await;
        // Some wait by now, some have not been polled yet; one gives up.
        assert!(timeout(MS, event.listen()).await.is_err());
        event.notify_all();
        let late = event.listen();
        for task in tasks {
            task.await;
        }
        assert_eq!(woken.get(), 10);
        assert_eq!(event.waiting(), 0);
        assert!(timeout(MS, late).await.is_err(), "woken by a notification before it listened");
        let last = event.listen();
        drop(event);
        last.await;
    });
}

#[test]
fn notify_hands_its_permit_on() {
    in_both_worlds(1, |_| async {
        let notify = Rc::new(Notify::new());
        notify.notify_one();
        notify.notify_one();
        notify.notified().await;
        assert!(timeout(MS, notify.notified()).await.is_err(), "two notifications gave two permits");
        let waiter = |notify: &Rc<Notify>| {
            let notify = Rc::clone(notify);
            spawn(Queue::Control, async move { notify.notified().await })
        };
        let (first, second) = (waiter(&notify), waiter(&notify));
        sleep(MS).await;
        notify.notify_one();
        // Notified and dropped before it ran: the other one gets it.
        drop(first);
        let _ = timeout(MS * 500, second).await;
        notify.notify_one();
        notify.notified().await;
    });
}

#[test]
fn a_oneshot_gives_its_value_or_the_end() {
    in_both_worlds(1, |_| async {
        let (sender, receiver) = oneshot();
        spawn(Queue::Control, async move {
            yield_now().await;
            sender.send(9).unwrap();
        })
        .detach();
        assert_eq!(receiver.await, Ok(9));
        let (sender, receiver) = oneshot::<u8>();
        spawn(Queue::Control, async move { drop(sender) }).detach();
        assert!(receiver.await.is_err());
        let (sender, receiver) = oneshot();
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(1), Err(1));
    });
}

#[test]
fn a_semaphore_serves_in_the_order_of_asking() {
    in_both_worlds(1, |_| async {
        let semaphore = Semaphore::new(10);
        let held = semaphore.acquire(8).await;
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for (name, n) in [("large", 9), ("small", 1), ("oversized", 1000), ("last", 2)] {
            let (own, order) = (semaphore.clone(), Rc::clone(&order));
            tasks.push(spawn(Queue::Produce, async move {
                let permit = own.acquire(n).await;
                order.borrow_mut().push((name, permit.count()));
                sleep(MS).await;
            }));
            // Each is in line before the next.
            while semaphore.waiting() < tasks.len() {
                yield_now().await;
            }
        }
        assert!(semaphore.try_acquire(1).is_none(), "overtook the line");
        // One in the middle gives up and is no obstacle.
        let gone = tasks.remove(1);
        drop(gone);
        while semaphore.waiting() > 3 {
            yield_now().await;
        }
        drop(held);
        for task in tasks {
            task.await;
        }
        assert_eq!(*order.borrow(), [("large", 9), ("oversized", 10), ("last", 2)]);
        assert_eq!((semaphore.available(), semaphore.total()), (10, 10));
        let mut permit = semaphore.try_acquire(5).unwrap();
        let part = permit.split(2);
        permit.release(1);
        assert_eq!((permit.count(), part.count(), semaphore.available()), (2, 2, 6));
        drop((permit, part));
        assert_eq!(semaphore.available(), 10);
    });
}

#[test]
fn a_bounded_queue_holds_its_senders_back() {
    in_both_worlds(1, |_| async {
        let (sender, mut receiver) = bounded(3);
        let sent = Rc::new(Cell::new(0));
        let count = Rc::clone(&sent);
        let producer = sender.clone();
        let task = spawn(Queue::Produce, async move {
            for i in 0..100 {
                producer.send(i).await.unwrap();
                count.set(i + 1);
            }
        });
        sleep(MS * 2).await;
        assert_eq!(sent.get(), 3);
        assert!(sender.try_send(0).is_err());
        drop(sender);
        for i in 0..100 {
            assert_eq!(receiver.recv().await, Some(i));
        }
        task.await;
        assert_eq!(receiver.recv().await, None);

        let (sender, receiver) = bounded(1);
        sender.send(Rc::new(())).await.unwrap();
        let waiting = spawn(Queue::Produce, async move { sender.send(Rc::new(())).await });
        yield_now().await;
        drop(receiver);
        assert!(waiting.await.is_err());
    });
}

#[test]
fn a_mesh_carries_everything_in_order_between_all_cores() {
    const CORES: usize = 3;
    const MESSAGES: u64 = 2000;
    // Far fewer than the messages, so that senders wait for room.
    common::in_glommio_with(mesh(CORES, 4), |world, seat| mesh_run(seat, world.ctx.core, CORES, MESSAGES));
    for seed in 0..5 {
        common::in_simulation_with(seed, mesh(CORES, 4), |world, seat| {
            mesh_run(seat, world.ctx.core, CORES, 200)
        });
    }
}

#[test]
fn a_mesh_tells_once_of_each_core_that_has_gone_after_all_it_sent() {
    async fn run(seat: corelog_io::Seat<u32>, core: usize) {
        let (senders, mut receiver) = seat.join(core).await;
        if core > 0 {
            for message in 0..core as u32 {
                senders.send(0, message).await.unwrap();
            }
            return;
        }
        let mut next = [0, 0, 0];
        let mut gone = Vec::new();
        while gone.len() < 2 {
            match receiver.recv_or_gone().await.expect("this core is there itself") {
                (from, Received::Message(message)) => {
                    assert_eq!(message, next[from]);
                    next[from] += 1;
                }
                (from, Received::Gone) => {
                    assert_eq!(next[from] as usize, from, "all was received");
                    gone.push(from);
                }
            }
        }
        drop(senders);
        assert_eq!(receiver.recv_or_gone().await, Some((0, Received::Gone)));
        assert_eq!(receiver.recv_or_gone().await, None);
    }
    common::in_glommio_with(mesh(3, 2), |world, seat| run(seat, world.ctx.core));
    for seed in 0..20 {
        common::in_simulation_with(seed, mesh(3, 2), |world, seat| run(seat, world.ctx.core));
    }
}

async fn mesh_run(seat: corelog_io::Seat<(usize, u64)>, core: usize, cores: usize, messages: u64) {
    let (senders, mut receiver) = seat.join(core).await;
    let sending = spawn(Queue::Produce, async move {
        for i in 0..messages {
            for to in 0..cores {
                senders.send(to, (core, i)).await.unwrap();
            }
        }
    });
    let mut next = vec![0; cores];
    // Ends when all senders, this core's included, are gone.
    while let Some((from, (said, i))) = receiver.recv().await {
        assert_eq!(from, said);
        assert_eq!(i, next[from], "out of order from core {from}");
        next[from] += 1;
    }
    assert_eq!(next, vec![messages; cores]);
    sending.await;
}

#[test]
fn a_mesh_tells_when_the_other_side_is_gone() {
    in_both_worlds(1, |_| async {
        let mut seats = mesh::<Rc2>(2, 1);
        let other = seats.pop().unwrap();
        let (senders, mut receiver) = seats.pop().unwrap().join(0).await;
        senders.try_send(1, Rc2(1)).unwrap();
        assert!(matches!(senders.try_send(1, Rc2(2)), Err(corelog_io::TrySendError::Full(Rc2(2)))));
        let senders = Rc::new(senders);
        let waiting = spawn(Queue::Produce, {
            let senders = Rc::clone(&senders);
            async move { senders.send(1, Rc2(3)).await }
        });
        yield_now().await;
        drop(other);
        assert!(waiting.await.is_err());
        assert!(receiver.try_recv().is_none());
        drop(senders);
        assert!(receiver.recv().await.is_none());
    });
}

#[derive(Debug, PartialEq)]
struct Rc2(u32);

#[test]
fn foreign_threads_reach_a_core() {
    const THREADS: u32 = 4;
    const MESSAGES: u32 = 500;
    let (sender, receiver) = remote(8);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for i in 0..MESSAGES {
                    sender.blocking_send((thread, i)).unwrap();
                }
            })
        })
        .collect();
    drop(sender);
    common::in_glommio_with(vec![receiver], |_, mut receiver| async move {
        let mut next = [0; THREADS as usize];
        while let Some((thread, i)) = receiver.recv().await {
            assert_eq!(next[thread as usize], i);
            next[thread as usize] += 1;
        }
        assert_eq!(next, [MESSAGES; THREADS as usize]);
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_remote_mailbox_is_bounded_and_closes() {
    in_both_worlds(1, |_| async {
        let (sender, mut receiver) = remote(2);
        sender.send(1).await.unwrap();
        sender.try_send(2).unwrap();
        assert!(sender.try_send(3).is_err());
        let waiting = spawn(Queue::Control, {
            let sender = sender.clone();
            async move { sender.send(3).await }
        });
        yield_now().await;
        assert_eq!(receiver.recv().await, Some(1));
        waiting.await.unwrap();
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(2), Some(3)));
        drop(receiver);
        assert!(sender.send(4).await.is_err());
    });
}

#[test]
fn a_cpu_that_is_not_there_is_told() {
    let config = corelog_io::RunConfig::new(vec![available_cpus().unwrap()[0], 100_000]);
    let error =
        run_glommio(config, |_| async { unreachable!("no core starts when one cannot") }).err().unwrap();
    assert!(error.to_string().contains("core 1 on CPU 100000"), "{error}");
}
