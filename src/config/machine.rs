//! Sizes of memory: what this process may use, and how people write them.

use std::fs;

/// Assumed where nothing tells.
const UNKNOWN: usize = 4 << 30;

/// Where control groups say their limit, in both of their versions.
const LIMITS: [&str; 2] =
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Bytes: what the machine has, or its control group allows.
pub fn memory() -> usize {
    let installed = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let allowed =
        LIMITS.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    allowed.chain(installed).min().unwrap_or(UNKNOWN)
}

/// Bytes that could be had at the moment, as far as the machine tells.
pub fn available() -> Option<usize> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    kilobytes(&text, "MemAvailable:")?.checked_mul(1024)
}

/// A size as people write it: a number of kB, or with a unit; powers of 1024, as PostgreSQL's
/// settings have it.
pub fn parse_bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit: usize = match text[digits..].trim() {
        "B" => 1,
        "" | "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    text[..digits].parse::<usize>().ok()?.checked_mul(unit)
}

/// The total in `/proc/meminfo`.
fn total(text: &str) -> Option<usize> {
    kilobytes(text, "MemTotal:")?.checked_mul(1024)
}

/// A line of `/proc/meminfo`, which counts in kB.
fn kilobytes(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let parsed = ["64", "64kB", "3 MB", "1GB", "5B", "1.5MB", "MB", ""].map(parse_bytes);
        let kb = Some(64 << 10);
        assert_eq!(parsed, [kb, kb, Some(3 << 20), Some(1 << 30), Some(5), None, None, None]);
    }

    #[test]
    fn reads_the_total() {
        let text = "MemTotal:        2048 kB\nMemFree:            1 kB\n";
        assert_eq!(total(text), Some(2 << 20));
        assert_eq!(total("nothing"), None);
        assert!(memory() > 64 << 20);
    }
}
