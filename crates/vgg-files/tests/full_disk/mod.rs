//! Full disks, and the behaviour of fault injection itself.

use super::*;

#[test]
fn full_disk_keeps_the_old_file_and_leaves_no_other() {
    let _alone = alone();
    let operations = full_everywhere(
        |dir| fs::write(dir.join("a"), long(1)).unwrap(),
        |dir| vgg_files::write_with(&dir.join("a"), |out| write_long(out, 2)),
        |dir, last, when| {
            // The last operation syncs the directory; the new file has its name by then.
            let byte = if last { 2 } else { 1 };
            assert!(fs::read(dir.join("a")).unwrap() == long(byte), "{when}");
            assert_eq!(names(dir), ["a"], "{when}");
        },
    );
    assert!(operations > 5, "{operations}");
}

#[test]
fn full_disk_keeps_the_old_directory() {
    let _alone = alone();
    let path = |dir: &Path| dir.join("a");
    let operations = full_everywhere(
        |dir| write_directory(&path(dir), 1).unwrap(),
        |dir| write_directory(&path(dir), 2),
        |dir, last, when| {
            let byte = if last { 2 } else { 1 };
            assert_eq!(byte_of(&path(dir)).unwrap(), byte, "{when}");
            if !last {
                assert_eq!(names(dir), ["a"], "{when}");
            }
            vgg_files::remove_partial_files(dir).unwrap();
            assert_eq!(names(dir), ["a"], "{when}");
        },
    );
    assert!(operations > 10, "{operations}");
}

#[test]
fn full_disk_leaves_no_partial_directory() {
    let _alone = alone();
    let operations = full_everywhere(
        |_| (),
        |dir| write_directory(&dir.join("a"), 1),
        |dir, last, when| {
            let expected: &[&str] = if last { &["a"] } else { &[] };
            assert_eq!(names(dir), expected, "{when}");
        },
    );
    assert!(operations > 10, "{operations}");
}

#[test]
fn probe_of_a_full_disk_fails_and_leaves_no_file() {
    let _alone = alone();
    let operations = full_everywhere(
        |_| (),
        |dir| vgg_files::probe(dir, 0),
        |dir, _, when| assert_eq!(names(dir), [""; 0], "{when}"),
    );
    // Create, write and sync. With delayed allocation, only the sync fails on a full file system.
    assert_eq!(operations, 3);
}

#[test]
fn full_disk_fails_after_half_of_a_write() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    faults::inject(Some((1, Fault::Full)));
    let mut file = FileWriter::create(&dir.path().join("a")).unwrap();
    file.write_all(b"0123456789").unwrap();
    let error = file.flush().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(fs::read(partial(dir.path())).unwrap(), b"01234");
    drop(file);
    assert_eq!(names(dir.path()), [""; 0]);
    faults::inject(None);
}

#[test]
fn stopped_machine_changes_no_file() {
    let _alone = alone();
    let acts: [fn(&Path) -> Result<()>; 5] = [
        |dir| vgg_files::write_bytes(&dir.join("a"), b"a"),
        |dir| vgg_files::write_bytes(&dir.join("new/a"), b"a"),
        |dir| DirectoryWriter::new(&dir.join("a")).map(drop),
        |dir| Lock::acquire(&dir.join("new")).map(drop),
        |dir| vgg_files::remove_partial_files(dir),
    ];
    for (number, act) in acts.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".a.1-0-1.partial"), "").unwrap();
        let before = contents(dir.path());
        faults::inject(Some((0, Fault::Stop)));
        // The machine stops before the first operation.
        vgg_files::write_bytes(&dir.path().join("b"), b"").unwrap_err();
        let error = act(dir.path()).expect_err("the machine has stopped");
        faults::inject(None);
        assert!(error.to_string().contains("the machine has stopped"), "act {number}: {error}");
        assert_eq!(contents(dir.path()), before, "act {number}");
    }
}

#[test]
fn without_a_plan_no_operation_fails_and_no_data_are_lost() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    faults::inject(None);
    let mut file = FileWriter::create(&dir.path().join("a")).unwrap();
    file.write_all(b"a").unwrap();
    file.flush().unwrap();
    faults::power_loss(PowerLoss::Names).unwrap();
    assert_eq!(fs::read(partial(dir.path())).unwrap(), b"a");
    file.commit().unwrap();
    assert_eq!(names(dir.path()), ["a"]);
}
