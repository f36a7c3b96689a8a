// Gaussian blur of images [N, C, H, W] along one dimension, each with its own weights. Beyond the
// borders, a line of pixels is reflected, without the border pixel itself.
//
//   y[p] = the sum of weights[image, i] x[q] over i < size, where q is pixel |p + i - size / 2| of
//          the line, reflected at its end
//
// One element of y per invocation, workgroups of 256 along one dimension. The bindings start
// x_offset and y_offset elements before the first image.

#import grid

struct Params {
    // The number of elements of y.
    count: u32,
    x_offset: u32,
    y_offset: u32,
    // Elements of an image.
    image: u32,
    // Pixels of a line, and the distance of its pixels: W and 1, or H and W.
    length: u32,
    stride: u32,
    // Weights per image; an odd number, half of which is less than `length`.
    size: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn blur(at: Invocation) {
    let index = index256(at);
    if index >= params.count {
        return;
    }
    let place = index / params.stride % params.length;
    let line = params.x_offset + index - place * params.stride;
    let first = index / params.image * params.size;
    let last = i32(params.length) - 1;
    var sum = 0.0;
    for (var i = 0u; i < params.size; i++) {
        let distance = abs(i32(place + i) - i32(params.size / 2u));
        let pixel = u32(min(distance, 2 * last - distance));
        sum += weights[first + i] * x[line + pixel * params.stride];
    }
    y[params.y_offset + index] = sum;
}
