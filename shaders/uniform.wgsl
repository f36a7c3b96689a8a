// Numbers uniform in [low, high): element i is low + (high - low) (w >> 8) 2^-24, where w is word
// i mod 4 of Philox's block i / 4. One block per invocation, workgroups of 256 along one dimension.

#import grid
#import philox

struct Params {
    // The number of blocks, and the index of the first block.
    count: u32,
    first: u32,
    // The low and high halves of the seed and of the stream.
    seed_low: u32,
    seed_high: u32,
    stream_low: u32,
    stream_high: u32,
    low: f32,
    high: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(256)
fn uniform_noise(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        let counter = vec4u(params.first + i, 0u, params.stream_low, params.stream_high);
        let words = philox4x32(vec2u(params.seed_low, params.seed_high), counter);
        let units = vec4f(words >> vec4u(8u)) * (1.0 / 16777216.0);
        y[i] = params.low + (params.high - params.low) * units;
    }
}
