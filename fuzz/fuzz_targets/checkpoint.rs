//! Checkpoints, with digests that agree or not.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use parallax::Device;
use parallax::autograd::{Tape, Var};
use parallax::nn::Linear;
use parallax::nn::weights::save;
use parallax::optim::Optimization;
use parallax::runs::folder::RunFolder;
use parallax::runs::checkpoint::restore;
use parallax::train::Trainer;
use parallax_fuzz::Folder;
use sha2::{Digest, Sha256};

#[derive(Arbitrary, Debug)]
struct Input {
    entries: Vec<(Key, String)>,
    /// Bytes that are replaced.
    edits: Vec<(u16, u8)>,
    cut: Option<u16>,
    is_signed: bool,
}

#[derive(Arbitrary, Debug)]
enum Key {
    Step,
    OptimizerSteps,
    PeakBytes,
    Variants,
    LossScale,
    Digest,
    Any(String),
}

const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fuzz_target!(|input: Input| {
    let device = Device::cpu();
    let network = Linear::new("fc", 2, 2, 0, &device).expect("it can be built");
    let objective = |_: &Linear, tape: &Tape, _: u64| -> parallax::Result<Var> {
        let zero = parallax::Tensor::from_slice(&[0.0_f32], &[1], &tape.device().clone())?;
        Ok(tape.constant(&zero))
    };
    let mut trainer =
        Trainer::new(network, Optimization::adam(0.01), objective).expect("it can train");
    let mut entries = BTreeMap::from(
        [
            ("digest", NO_DIGEST),
            ("step", "3"),
            ("optimizer_steps", "3"),
            ("peak_bytes", "0"),
        ]
        .map(|(key, value)| (key.to_string(), value.to_string())),
    );
    for (key, value) in input.entries {
        let key = match key {
            Key::Step => "step".to_string(),
            Key::OptimizerSteps => "optimizer_steps".to_string(),
            Key::PeakBytes => "peak_bytes".to_string(),
            Key::Variants => "variants".to_string(),
            Key::LossScale => "loss_scale".to_string(),
            Key::Digest => "digest".to_string(),
            Key::Any(key) => key,
        };
        entries.insert(key, value);
    }
    let mut bytes = save(&trainer.state(), &entries).expect("it can be saved");
    for (place, byte) in input.edits {
        let place = usize::from(place) % bytes.len();
        bytes[place] = byte;
    }
    if let Some(len) = input.cut {
        bytes.truncate(usize::from(len));
    }
    if input.is_signed {
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut windows = bytes.windows(NO_DIGEST.len());
        if let Some(at) = windows.position(|window| window == NO_DIGEST.as_bytes()) {
            bytes[at..at + digest.len()].copy_from_slice(digest.as_bytes());
        }
    }
    thread_local!(static FOLDER: (RunFolder, Folder) = {
        let base = Folder::new();
        (RunFolder::create(&base.path().join("run")).expect("it can be made"), base)
    });
    FOLDER.with(|(folder, base)| {
        base.write("run/checkpoint.safetensors", &bytes);
        drop(restore(&device, &mut trainer, folder));
    });
});
