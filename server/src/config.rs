//! Temporary.
use engine::settings::Settings;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
pub(crate) enum Mode {
    Run,
    Help,
    Version,
}
pub(crate) struct Startup {
    pub(crate) settings: Settings,
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) mode: Mode,
}
pub(crate) const HELP: &str = "";
pub(crate) fn load(args: impl Iterator<Item = OsString>) -> Result<Startup, String> {
    let mut settings = Settings::default();
    settings.pidfile = String::new();
    let a: Vec<String> = args.map(|a| a.into_string().unwrap()).collect();
    for w in a.windows(2) {
        match w[0].as_str() {
            "--port" => settings.port = w[1].parse().unwrap(),
            "--bind" => settings.bind = vec![w[1].clone()],
            "--io-threads" => settings.io_threads = w[1].parse().unwrap(),
            "--maxmemory" => settings.maxmemory_bytes = 0,
            _ => {}
        }
    }
    Ok(Startup { settings, config_file: None, mode: Mode::Run })
}
pub(crate) fn rewrite_file(_: &Path, _: &Settings) -> Result<(), String> {
    Err("x".into())
}
