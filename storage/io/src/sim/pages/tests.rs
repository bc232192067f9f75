use super::*;

fn all(contents: &Contents) -> Vec<u8> {
    let mut buf = vec![0xee; contents.len() as usize];
    assert_eq!(contents.read(0, &mut buf), buf.len());
    buf
}

#[test]
fn synced_bytes_survive_every_crash() {
    for seed in 0..200 {
        let mut contents = Contents::default();
        contents.write(100, &[1; 9000]);
        contents.sync();
        contents.write(4096, &[2; 4096]);
        contents.sync_range(4096, 4096);
        contents.write(8192, &[3; 300]);
        contents.sync_range(8192, 100);
        contents.crash(&mut Random::new(seed), 0);
        let bytes = all(&contents);
        assert_eq!(bytes.len(), 9100);
        assert!(bytes[..100].iter().all(|b| *b == 0));
        assert!(bytes[100..4096].iter().all(|b| *b == 1));
        assert!(bytes[4096..8192].iter().all(|b| *b == 2));
        assert!(bytes[8192..8292].iter().all(|b| *b == 3));
        assert!(bytes[8292..8492].iter().all(|b| *b == 1 || *b == 3));
    }
}

#[test]
fn unsynced_bytes_are_kept_lost_or_torn_by_sector() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..300 {
        let mut contents = Contents::default();
        contents.write(0, &[1; PAGE]);
        contents.sync();
        contents.write(0, &[2; PAGE]);
        contents.crash(&mut Random::new(seed), 0);
        let bytes = all(&contents);
        for sector in bytes.chunks(SECTOR) {
            assert!(sector.iter().all(|b| b == &sector[0]), "a sector is never torn");
        }
        match bytes.iter().filter(|b| **b == 2).count() {
            0 => lost += 1,
            PAGE => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(kept > 50 && lost > 50 && torn > 20, "{kept} kept, {lost} lost, {torn} torn");
}

#[test]
fn an_unsynced_length_may_be_lost_and_brings_zeros_not_garbage() {
    let mut lens = BTreeSet::new();
    for seed in 0..100 {
        let mut contents = Contents::default();
        contents.write(0, &[1; 1000]);
        contents.sync();
        contents.truncate(10);
        contents.allocate(0, 2000);
        contents.crash(&mut Random::new(seed), 0);
        let bytes = all(&contents);
        lens.insert(bytes.len());
        match bytes.len() {
            1000 => assert!(bytes.iter().all(|b| *b == 1)),
            10 | 2000 => assert!(bytes[10..].iter().all(|b| *b == 0), "cut bytes came back"),
            other => panic!("length {other}"),
        }
    }
    assert_eq!(lens, BTreeSet::from([10, 1000, 2000]));
}

#[test]
fn after_a_failed_sync_a_later_one_promises_nothing_for_the_same_bytes() {
    let (mut lost, mut forgotten) = (0, 0);
    for seed in 0..100 {
        let mut contents = Contents::default();
        contents.write(0, &[1; PAGE]);
        contents.sync();
        contents.write(0, &[2; PAGE]);
        contents.sync_failed(&mut Random::new(seed));
        contents.sync();
        let seen = all(&contents)[0];
        contents.crash(&mut Random::new(seed), 0);
        let kept = all(&contents)[0];
        assert!(seen == 2 || kept == 1, "what is not to be seen does not come back");
        lost += usize::from(kept == 1);
        forgotten += usize::from(seen == 1);
    }
    assert!(lost > 50 && lost < 90 && forgotten > 20 && forgotten < 50, "{lost} lost, {forgotten} forgotten");
}

#[test]
fn what_is_written_again_after_a_failed_sync_is_durable_with_the_next() {
    for seed in 0..100 {
        let mut contents = Contents::default();
        contents.write(0, &[1; PAGE]);
        contents.sync_failed(&mut Random::new(seed));
        contents.write(0, &[2; PAGE]);
        contents.sync();
        contents.crash(&mut Random::new(seed), 0);
        assert_eq!(all(&contents), [2; PAGE]);
    }
}
