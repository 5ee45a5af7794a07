//! Cores and memory of the machine.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Number of cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Available memory as reported by Linux, within the limits of control groups, such as those of a container or a batch
/// job; 2 GiB if unknown.
pub fn free_memory_bytes() -> u64 {
    let text = read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    let free = kib.map_or(2 << 30, |kib| kib << 10);
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    free.min(group_memory_bytes(Path::new("/sys/fs/cgroup"), &groups).unwrap_or(u64::MAX))
}

/// Peak memory of this process, if the system reports it.
pub fn peak_memory_bytes() -> Option<usize> {
    let text = read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<usize>().ok().map(|kib| kib << 10)
}

/// Files of a control group with its limit and its use of memory, and the entry of `memory.stat` with the file cache
/// that can be dropped at once.
struct Files {
    limit: &'static str,
    usage: &'static str,
    cache: &'static str,
}

const VERSION_1: Files =
    Files { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", cache: "total_inactive_file" };
const VERSION_2: Files = Files { limit: "memory.max", usage: "memory.current", cache: "inactive_file" };

/// Memory that this process may still allocate within its control groups and those above, each of which may have a
/// limit; `None` if there is none. `mount` is where control groups are mounted, `groups` the text of
/// `/proc/self/cgroup`.
fn group_memory_bytes(mount: &Path, groups: &str) -> Option<u64> {
    let mut free = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (tops, files) = match controllers {
            "" => ([mount.to_owned(), mount.join("unified")], VERSION_2),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ([mount.join("memory"), mount.join(controllers)], VERSION_1)
            }
            _ => continue,
        };
        for top in tops.iter().filter(|top| top.is_dir()) {
            let own = top.join(path.trim_start_matches('/'));
            // In a container, the path may be that on the host, and the group of the container the top.
            let own = if own.is_dir() { own } else { top.clone() };
            let all = own.ancestors().take_while(|group| group.starts_with(top));
            free.extend(all.filter_map(|group| files.free_bytes(group)));
        }
    }
    free.into_iter().min()
}

impl Files {
    fn free_bytes(&self, group: &Path) -> Option<u64> {
        let number = |file: PathBuf| read_to_string(file).ok()?.trim().parse::<u64>().ok();
        // Version 1 has a number near 2^63 where there is no limit, version 2 the word `max`.
        let limit = number(group.join(self.limit)).filter(|limit| *limit < 1 << 62)?;
        let usage = number(group.join(self.usage))?;
        let stat = read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cache = stat.lines().find_map(|line| line.strip_prefix(self.cache)?.trim().parse::<u64>().ok());
        Some(limit.saturating_sub(usage.saturating_sub(cache.unwrap_or(0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(mount: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = mount.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn limits_of_groups_above_count_in_version_2() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("a/memory.max", "1000\n"),
                ("a/memory.current", "900\n"),
                ("a/memory.stat", "anon 5\ninactive_file 200\nactive_file 9\n"),
                ("a/b/memory.max", "max\n"),
                ("a/b/memory.current", "800\n"),
                ("a/b/c/memory.max", "700\n"),
                ("a/b/c/memory.current", "100\n"),
            ],
        );
        let free = |groups: &str| group_memory_bytes(dir.path(), groups);
        assert_eq!(free("0::/a/b/c\n"), Some(300));
        assert_eq!(free("0::/a/b\n"), Some(300));
        assert_eq!(free("0::/\n"), None);
        // A path of the host that does not exist here.
        write(dir.path(), &[("memory.max", "50"), ("memory.current", "20")]);
        assert_eq!(free("0::/docker/1234\n"), Some(30));
        assert_eq!(free(""), None);
    }

    #[test]
    fn limits_of_groups_above_count_in_version_1() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/memory.usage_in_bytes", "5\n"),
                ("memory/job/memory.limit_in_bytes", "500\n"),
                ("memory/job/memory.usage_in_bytes", "450\n"),
                ("memory/job/memory.stat", "cache 7\ntotal_inactive_file 100\n"),
                ("memory/job/step/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/job/step/memory.usage_in_bytes", "5\n"),
            ],
        );
        let groups = "9:name=systemd:/\n4:cpu,memory:/job/step\n3:cpuset:/\n0::/\n";
        assert_eq!(group_memory_bytes(dir.path(), groups), Some(150));
        assert_eq!(group_memory_bytes(dir.path(), "4:memory:/\n"), None);
    }
}
