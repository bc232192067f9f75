use super::*;

const NODE_1: Wanted<'static> = Wanted { node_id: Some(1), peer: None, has_seeds: false };

fn member(life: Life) -> Identity {
    match life {
        Life::Member(identity) => identity,
        Life::Forming(_) => panic!("it belongs to no cluster"),
    }
}

fn peer() -> Endpoint {
    Endpoint { host: "b1".into(), port: 9093 }
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("corelog-identity-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

#[test]
fn is_made_once_and_kept() {
    let dir = scratch("kept");
    let (first, lock) = open(&dir, NODE_1).unwrap();
    drop(lock);
    let (second, _lock) = open(&dir, NODE_1).unwrap();
    assert_eq!(first, second);
    let first = member(first);
    assert_eq!(first.cluster_id.len(), 22, "{}", first.cluster_id);
    assert!(!first.directory.is_zero() && first.belongs == Belongs::Alone);
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_second_process_is_refused() {
    let dir = scratch("locked");
    let _first = open(&dir, NODE_1).unwrap();
    // flock belongs to the open file, so a second open in this process stands for a second process.
    assert!(matches!(open(&dir, NODE_1), Err(IdentityError::Locked { .. })));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn other_versions_nodes_damage_and_strangers_are_refused() {
    let dir = scratch("refused");
    drop(open(&dir, NODE_1).unwrap());
    assert!(matches!(
        open(&dir, Wanted { node_id: Some(2), ..NODE_1 }),
        Err(IdentityError::OtherNode { found: 1, wanted: 2, .. })
    ));
    let path = dir.join(FILE_NAME);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("layout_version = 1", "layout_version = 99")).unwrap();
    assert!(matches!(open(&dir, NODE_1), Err(IdentityError::Version { found: 99, .. })));
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(matches!(open(&dir, NODE_1), Err(IdentityError::Damaged { .. })));
    fs::remove_file(&path).unwrap();
    fs::write(dir.join("holiday.jpg"), "").unwrap();
    assert!(matches!(open(&dir, NODE_1), Err(IdentityError::NotEmpty { .. })));
    assert!(matches!(open(&dir.join("holiday.jpg"), NODE_1), Err(IdentityError::NoDirectory { .. })));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_half_restored_directory_is_refused() {
    let dir = scratch("halves");
    let (life, lock) = open(&dir, NODE_1).unwrap();
    let identity = member(life);
    drop(lock);
    // A start that failed before there was a journal may be tried again.
    drop(open(&dir, NODE_1).unwrap());
    fs::create_dir(dir.join("journal")).unwrap();
    fs::write(dir.join("journal/00000001-0-0.journal"), "").unwrap();
    note_ready(&dir, &identity).unwrap();
    assert_eq!(member(open(&dir, NODE_1).unwrap().0), identity);
    fs::remove_file(dir.join("journal/00000001-0-0.journal")).unwrap();
    for _ in 0..2 {
        let refused = open(&dir, NODE_1).unwrap_err();
        assert!(matches!(refused, IdentityError::NoJournal { .. }), "{refused}");
        let _ = fs::remove_dir(dir.join("journal"));
    }
    fs::remove_file(dir.join(FILE_NAME)).unwrap();
    fs::create_dir(dir.join("topics")).unwrap();
    let refused = open(&dir, NODE_1).unwrap_err();
    assert!(matches!(refused, IdentityError::Lost { .. }), "{refused}");
    assert!(!dir.join(FILE_NAME).exists());
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_directory_id_is_drawn_where_there_is_none() {
    let dir = scratch("drawn");
    let first = member(open(&dir, NODE_1).unwrap().0);
    let text = fs::read_to_string(dir.join(FILE_NAME)).unwrap();
    let earlier: Vec<&str> = text.lines().filter(|line| !line.starts_with("directory")).collect();
    fs::write(dir.join(FILE_NAME), earlier.join("\n")).unwrap();
    let drawn = member(open(&dir, NODE_1).unwrap().0);
    assert_eq!(drawn.cluster_id, first.cluster_id);
    assert!(!drawn.directory.is_zero() && drawn.directory != first.directory);
    assert_eq!(member(open(&dir, NODE_1).unwrap().0), drawn, "once");
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_broker_that_was_alone_can_be_joined_from_then_on() {
    let dir = scratch("opened");
    let alone = member(open(&dir, Wanted { node_id: Some(4), ..NODE_1 }).unwrap().0);
    let peer = peer();
    let wanted = Wanted { node_id: None, peer: Some(&peer), has_seeds: false };
    for has_seeds in [false, true] {
        let opened = member(open(&dir, Wanted { has_seeds, ..wanted }).unwrap().0);
        let itself =
            Founder { node_id: 4, directory: alone.directory, replica: ReplicaId(1), peer: peer.clone() };
        assert_eq!(opened, Identity { belongs: Belongs::Founder(vec![itself]), ..alone.clone() });
    }
    let refused = open(&dir, Wanted { peer: None, ..wanted }).unwrap_err();
    assert!(matches!(refused, IdentityError::NoPeer { .. }), "{refused}");
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn who_is_to_found_a_cluster_does_so_with_one_directory() {
    let (dir, peer) = (scratch("forming"), peer());
    let wanted = Wanted { node_id: None, peer: Some(&peer), has_seeds: true };
    let (first, lock) = open(&dir, wanted).unwrap();
    assert!(matches!(first, Life::Forming(directory) if !directory.is_zero()));
    drop(lock);
    assert_eq!(open(&dir, wanted).unwrap().0, first);
    let refused = open(&dir, Wanted { has_seeds: false, ..wanted }).unwrap_err();
    assert!(matches!(refused, IdentityError::StillForming { .. }), "{refused}");
    fs::remove_dir_all(&dir).unwrap();
}
