//! The numbers that the paper prints, or that were read off its figures (within 0.001 in Figure 2,
//! 0.003 in Figure 4).

/// Batch sizes of SimCLR in Figure 2 and of the transfer by batch size.
pub const SIMCLR_BATCHES: [usize; 4] = [32, 64, 128, 256];
/// Batch sizes of RotNet in Figure 2.
pub const ROTNET_BATCHES: [usize; 5] = [32, 64, 128, 256, 512];
/// Batch size of the encoders of Table 1, which are fine-tuned.
pub const FINETUNED_BATCH: usize = 512;
/// Batch size of the encoders that are transferred by steps.
pub const TRANSFERRED_BATCH: usize = 128;
/// Steps of the longest pretraining. Fewer are given in tenths of it.
pub const FULL_STEPS: u64 = 5_000;
pub const TENTHS: u64 = 10;
/// Tenths of the full training at which Figure 2 is drawn here: 500, 1,000, 2,000 and 5,000 steps.
pub const FIG2_TENTHS: [u64; 4] = [1, 2, 4, TENTHS];
/// Tenths of Figure 4: 500, 1,000, 1,500 and 2,000 steps.
pub const FIG4_TENTHS: [u64; 4] = [1, 2, 3, TRANSFERRED_TENTHS];
/// Tenths after which the encoders of Tables 2 and the supervised baseline are transferred.
pub const TRANSFERRED_TENTHS: u64 = 4;
/// Label fractions of Table 1 and Figure 3.
pub const FRACTIONS: [f64; 3] = [0.01, 0.1, 0.5];

/// Figure 2, SimCLR: top-1 by batch size and part.
pub const FIG2_SIMCLR: [[f64; 4]; 4] = [
    [0.536, 0.555, 0.584, 0.588],
    [0.585, 0.618, 0.642, 0.647],
    [0.635, 0.671, 0.695, 0.699],
    [0.692, 0.727, 0.752, 0.756],
];

/// Figure 2, RotNet.
pub const FIG2_ROTNET: [[f64; 4]; 5] = [
    [0.531, 0.553, 0.562, 0.565],
    [0.529, 0.549, 0.559, 0.557],
    [0.566, 0.586, 0.594, 0.596],
    [0.568, 0.596, 0.604, 0.606],
    [0.595, 0.629, 0.634, 0.633],
];

/// Table 1: supervised, RotNet, SimCLR; by fraction; top-1, top-2, AUC.
pub const TABLE1: [[[f64; 3]; 3]; 3] = [
    [
        [0.141, 0.260, 0.634],
        [0.373, 0.539, 0.787],
        [0.475, 0.682, 0.873],
    ],
    [
        [0.515, 0.721, 0.881],
        [0.560, 0.760, 0.899],
        [0.577, 0.771, 0.909],
    ],
    [
        [0.653, 0.822, 0.935],
        [0.822, 0.929, 0.981],
        [0.870, 0.953, 0.990],
    ],
];

/// Table 2a: supervised and SimCLR from the first set to the second, SimCLR back; top-1, top-2,
/// top-3, AUC.
pub const TABLE2A: [[f64; 4]; 3] = [
    [0.4713, 0.6838, 0.7913, 0.8783],
    [0.6698, 0.8406, 0.9176, 0.9482],
    [0.6970, 0.8612, 0.9270, 0.9542],
];

/// Table 2b: top-1 from the first set to the second by batch size.
pub const TABLE2B: [f64; 4] = [0.5716, 0.6304, 0.6740, 0.7105];

/// The last strength of the attacks in Figure 3.
pub const PAPER_EPS: f64 = 0.275;
/// The last strength of a finer grid: 8 of 255 levels.
pub const FINE_EPS: f64 = 8.0 / 255.0;

/// Ten strengths from 0 to `last`, evenly spaced.
pub fn strengths(last: f64) -> [f64; 10] {
    std::array::from_fn(|i| last * i as f64 / 9.0)
}

/// Figure 3, PGD: supervised, then fine-tuned on 1, 10 and 50 %.
pub const FIG3_PGD: [[f64; 10]; 4] = [
    [
        0.847, 0.578, 0.380, 0.250, 0.176, 0.129, 0.101, 0.081, 0.070, 0.061,
    ],
    [
        0.653, 0.375, 0.267, 0.193, 0.145, 0.115, 0.095, 0.079, 0.069, 0.063,
    ],
    [
        0.822, 0.490, 0.356, 0.268, 0.206, 0.169, 0.141, 0.125, 0.110, 0.096,
    ],
    [
        0.870, 0.451, 0.302, 0.215, 0.166, 0.130, 0.104, 0.092, 0.080, 0.071,
    ],
];

/// Figure 3, FGSM.
pub const FIG3_FGSM: [[f64; 10]; 4] = [
    [
        0.847, 0.667, 0.563, 0.496, 0.438, 0.386, 0.343, 0.309, 0.278, 0.256,
    ],
    [
        0.653, 0.433, 0.371, 0.335, 0.306, 0.283, 0.262, 0.251, 0.233, 0.215,
    ],
    [
        0.822, 0.569, 0.493, 0.447, 0.412, 0.388, 0.366, 0.345, 0.321, 0.295,
    ],
    [
        0.870, 0.554, 0.461, 0.412, 0.377, 0.353, 0.330, 0.302, 0.278, 0.256,
    ],
];

/// Figure 4: from the first set to the second, and back.
pub const FIG4: [[f64; 4]; 2] = [[0.619, 0.647, 0.665, 0.670], [0.633, 0.666, 0.695, 0.697]];
