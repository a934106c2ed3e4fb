/// Makes sure that a program is installed.
///
/// # Panics
/// When it is not, naming the Debian package that has it.
pub fn need(program: &str, package: &str) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    assert!(found, "the tests need {program}: apt-get install {package}");
}
