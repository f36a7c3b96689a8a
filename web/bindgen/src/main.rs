//! Writes the JavaScript of a wasm module: `bindgen INPUT.wasm FOLDER`. As wasm-bindgen's own
//! command, with fewer dependencies and the version of this workspace.

use std::env::args;

fn main() {
    let [_, input, folder] = &args().collect::<Vec<_>>()[..] else {
        eprintln!("bindgen: expected two arguments, INPUT.wasm and FOLDER");
        std::process::exit(2);
    };
    let mut bindgen = wasm_bindgen_cli_support::Bindgen::new();
    let written = bindgen
        .input_path(input)
        .web(true)
        .and_then(|bindgen| bindgen.typescript(false).generate(folder));
    if let Err(error) = written {
        eprintln!("bindgen: {input}: {error:?}");
        std::process::exit(1);
    }
}
