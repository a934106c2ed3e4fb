//! Builds the viewer: files named by the hash of their content under `assets/`, which never change and may be cached for
//! ever, and an `index.html` that names them, each also compressed.

use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use brotli::enc::BrotliEncoderParams;
use brotli::enc::backward_references::BrotliEncoderMode::{
    self, BROTLI_FORCE_MSB_PRIOR, BROTLI_MODE_GENERIC,
};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::steps::step;
use crate::wasm;

/// Maximum bytes that a browser has to download before the viewer runs: wasm and scripts, compressed with brotli.
const CODE_MAX_BYTES: usize = 200 * 1024;
const BROTLI_QUALITY: i32 = 11;
const BROTLI_WINDOW_BITS: i32 = 22;
/// A file is one block: with smaller ones, code that is 250 bytes shorter may become 2,000 bytes longer in its compressed form.
const BROTLI_BLOCK_BITS: i32 = 24;
/// What a byte is predicted by: the second suits wasm, of which it saves 2 %.
const BROTLI_MODES: [BrotliEncoderMode; 2] = [BROTLI_MODE_GENERIC, BROTLI_FORCE_MSB_PRIOR];
/// Changes when this program makes other files of the same sources.
const RECIPE: &[u8] = b"2";

/// One file of the viewer.
struct Asset {
    /// Its path in the page.
    path: String,
    bytes: Vec<u8>,
    code: bool,
}

/// Builds the viewer if it is out of date, and returns its folder.
pub(crate) fn build(workspace: &Path, target: &Path) -> Result<PathBuf> {
    let place = target.join("viewer");
    step("Look for the wasm target", || wasm::ensure_target(workspace))?;
    let library = step("Compile the viewer", || wasm::compile(workspace, target))?;
    let sources = Sources::read(workspace, &library)?;
    let stamp = target.join("viewer.stamp");
    if place.join("index.html").is_file() && std::fs::read_to_string(&stamp).ok() == Some(sources.hash()) {
        eprintln!("==> The viewer in {} is up to date", place.display());
        return Ok(place);
    }
    let bound = step("Bind it to the browser", || wasm::bind(&library))?;
    let assets = sources.assets(bound)?;
    let report = step("Compress it", || write(&place, &assets))?;
    for line in &report.lines {
        eprintln!("    {line}");
    }
    eprintln!("    {} of at most {} bytes of compressed code", report.code, CODE_MAX_BYTES);
    if report.code > CODE_MAX_BYTES {
        bail!("the viewer's code has {} compressed bytes, at most {CODE_MAX_BYTES}", report.code);
    }
    std::fs::write(&stamp, sources.hash())?;
    Ok(place)
}

/// The sources of the viewer.
struct Sources {
    library: Vec<u8>,
    page: String,
    style: Vec<u8>,
    theme: Vec<u8>,
    icon: Vec<u8>,
}

impl Sources {
    fn read(workspace: &Path, library: &Path) -> Result<Self> {
        let frontend = workspace.join("frontend");
        let read =
            |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        Ok(Self {
            library: read(library)?,
            page: String::from_utf8(read(&frontend.join("index.html"))?)?,
            style: read(&frontend.join("style.css"))?,
            theme: read(&frontend.join("theme.js"))?,
            icon: read(&frontend.join("icon.svg"))?,
        })
    }

    fn hash(&self) -> String {
        let page = self.page.as_bytes();
        hash(&[RECIPE, &self.library, page, &self.style, &self.theme, &self.icon])
    }

    /// Returns the files to serve, with the page last, since it names the others.
    fn assets(&self, bound: wasm::Bound) -> Result<Vec<Asset>> {
        let wasm = Asset::named("viewer", "wasm", bound.wasm, true);
        let wasm_name = wasm.path.trim_start_matches("assets/");
        // The last line starts the viewer: the page shows a failure, and has no other script.
        let script = format!(
            "{}\n__wbg_init({{ module_or_path: new URL('{wasm_name}', import.meta.url) }})\
             .catch((error) => {{ document.documentElement.dataset.failed = ''; throw error; }});\n",
            bound.script
        );
        let script = Asset::named("viewer", "js", script.into_bytes(), true);
        let style = Asset::named("style", "css", self.style.clone(), false);
        let theme = Asset::named("theme", "js", self.theme.clone(), true);
        let icon = Asset::named("icon", "svg", self.icon.clone(), false);
        let mut page = self.page.clone();
        for (mark, asset) in [
            ("{viewer.wasm}", &wasm),
            ("{viewer.js}", &script),
            ("{style.css}", &style),
            ("{theme.js}", &theme),
            ("{icon.svg}", &icon),
        ] {
            if !page.contains(mark) {
                bail!("index.html does not name {mark}");
            }
            page = page.replace(mark, &asset.path);
        }
        let page = Asset { path: "index.html".to_owned(), bytes: page.into_bytes(), code: false };
        Ok(vec![wasm, script, style, theme, icon, page])
    }
}

impl Asset {
    /// Returns a file named by the hash of its content.
    fn named(stem: &str, extension: &str, bytes: Vec<u8>, code: bool) -> Self {
        Self { path: format!("assets/{stem}-{}.{extension}", hash(&[&bytes])), bytes, code }
    }
}

/// Long enough to distinguish builds; collisions are not an attack here.
fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    format!("{:016x}", hasher.finish())
}

struct Report {
    lines: Vec<String>,
    code: usize,
}

/// Writes a new viewer and replaces the old one.
fn write(place: &Path, assets: &[Asset]) -> Result<Report> {
    let fresh = place.with_extension("new");
    remove(&fresh)?;
    std::fs::create_dir_all(fresh.join("assets"))?;
    let mut report = Report { lines: Vec::new(), code: 0 };
    for asset in assets {
        let (brotli, gzip) = (brotli(&asset.bytes)?, gzip(&asset.bytes)?);
        let path = fresh.join(&asset.path);
        std::fs::write(&path, &asset.bytes)?;
        std::fs::write(format!("{}.br", path.display()), &brotli)?;
        std::fs::write(format!("{}.gz", path.display()), &gzip)?;
        report.lines.push(format!(
            "{:36} {:>8} bytes, gzip {:>7}, brotli {:>7}",
            asset.path,
            asset.bytes.len(),
            gzip.len(),
            brotli.len()
        ));
        report.code += if asset.code { brotli.len() } else { 0 };
    }
    remove(place)?;
    std::fs::rename(&fresh, place)?;
    Ok(report)
}

fn remove(place: &Path) -> Result<()> {
    if place.exists() {
        std::fs::remove_dir_all(place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    Ok(())
}

/// The shortest form that any of the modes gives.
fn brotli(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut forms = Vec::new();
    for mode in BROTLI_MODES {
        let params = BrotliEncoderParams {
            mode,
            quality: BROTLI_QUALITY,
            lgwin: BROTLI_WINDOW_BITS,
            lgblock: BROTLI_BLOCK_BITS,
            ..BrotliEncoderParams::default()
        };
        let mut form = Vec::new();
        brotli::BrotliCompress(&mut &bytes[..], &mut form, &params)?;
        forms.push(form);
    }
    forms.into_iter().min_by_key(Vec::len).context("there is a mode")
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}
