/// Lets this process open as many files as the system allows, since each reader is one.
pub fn raise_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) => tracing::debug!(files, "files that this process may open"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}
