//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Makes `bytes` the content of `path`: whoever reads it sees the old content or the new one, also after
/// a loss of power. The draft beside it carries the number of this process.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = Path::new(&draft);
    let written = File::create(draft).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let written = written.and_then(|()| fs::rename(draft, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(draft);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_replaced_and_no_draft_stays() {
        let folder = std::env::temp_dir().join(format!("mobilevlmd-whole-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("a.json");
        for content in ["one", "two"] {
            write(&path, content.as_bytes()).expect("it can be written");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), content);
        }
        assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 1);
        write(&folder.join("no/such/folder"), b"x").expect_err("there is no such folder");
        fs::remove_dir_all(&folder).expect("it can be removed");
    }
}
