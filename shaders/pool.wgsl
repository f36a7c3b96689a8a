// Pooling of N C planes of size H x W.
//
//   max_pool2d            y = the largest element of a window, argmax = its index in the plane; of
//                         equal elements the first; NaN is larger than all numbers; of
//                         several NaNs any
//   max_pool2d_backward   dx = the sum of dy over the windows whose argmax is this index
//   global_average_pool   y = the mean of a plane
//   global_average_pool_backward   dx = dy / (H W)
//
// One element of the result per invocation, workgroups of 256 along one dimension. The backward
// pass of max pooling gathers in row-major order of the windows, so that no two invocations write
// to one element. Bindings contain some of the planes, after in_offset and out_offset elements. The
// f16 variant has f16 x, y, dy and dx; the mean of a plane and its gradient are f32 there too.

#f16

#if F16
enable f16;
#end

#import grid
#import real

struct Params {
    // The number of elements of the result.
    count: u32,
    in_offset: u32,
    out_offset: u32,
    places_offset: u32,
    h: u32,
    w: u32,
    oh: u32,
    ow: u32,
    kernel: u32,
    stride: u32,
    padding: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<real>;
@group(0) @binding(2) var<storage, read> places: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<real>;
// The means of the planes, with the binding of y, and their gradient, with the binding of x.
@group(0) @binding(3) var<storage, read_write> features: array<f32>;
@group(0) @binding(1) var<storage, read> dfeatures: array<f32>;
@group(0) @binding(4) var<storage, read_write> argmax: array<u32>;

// Tests the bits, since a compiler may assume that no number is NaN.
fn is_nan(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
}

@compute @workgroup_size(256)
fn max_pool2d(at: Invocation) {
    let i = index256(at);
    if i >= params.count {
        return;
    }
    let window = params.oh * params.ow;
    let start = params.in_offset + i / window * params.h * params.w;
    let top = i % window / params.ow * params.stride;
    let left = i % params.ow * params.stride;
    let first_row = max(top, params.padding) - params.padding;
    let first_column = max(left, params.padding) - params.padding;
    let end_row = min(top + params.kernel - params.padding, params.h);
    let end_column = min(left + params.kernel - params.padding, params.w);
    var place = first_row * params.w + first_column;
    var best = f32(x[start + place]);
    for (var row = first_row; row < end_row; row++) {
        for (var column = first_column; column < end_column; column++) {
            let value = f32(x[start + row * params.w + column]);
            if !is_nan(best) && (value > best || is_nan(value)) {
                best = value;
                place = row * params.w + column;
            }
        }
    }
    y[params.out_offset + i] = real(best);
    argmax[params.places_offset + i] = place;
}

// Here, x is dy and y is dx.
@compute @workgroup_size(256)
fn max_pool2d_backward(at: Invocation) {
    let i = index256(at);
    if i >= params.count {
        return;
    }
    let plane_len = params.h * params.w;
    let place = i % plane_len;
    let row = place / params.w + params.padding;
    let column = place % params.w + params.padding;
    let start = i / plane_len * params.oh * params.ow;
    // A window contains this element if it starts at most kernel - 1 before it.
    let first_row = (max(row + 1u, params.kernel) - params.kernel + params.stride - 1u) / params.stride;
    let first_column = (max(column + 1u, params.kernel) - params.kernel + params.stride - 1u) / params.stride;
    let end_row = min(row / params.stride + 1u, params.oh);
    let end_column = min(column / params.stride + 1u, params.ow);
    var sum = 0.0;
    for (var oi = first_row; oi < end_row; oi++) {
        for (var oj = first_column; oj < end_column; oj++) {
            let window = start + oi * params.ow + oj;
            if places[params.places_offset + window] == place {
                sum += f32(x[params.in_offset + window]);
            }
        }
    }
    y[params.out_offset + i] = real(sum);
}

// Four partial sums per invocation reduce rounding errors.
@compute @workgroup_size(256)
fn global_average_pool(at: Invocation) {
    let i = index256(at);
    if i >= params.count {
        return;
    }
    let plane_len = params.h * params.w;
    let start = params.in_offset + i * plane_len;
    var sums = vec4f(0.0);
    let whole = plane_len / 4u * 4u;
    for (var p = 0u; p < whole; p += 4u) {
        let first = start + p;
        sums += vec4f(f32(x[first]), f32(x[first + 1u]), f32(x[first + 2u]), f32(x[first + 3u]));
    }
    var sum = (sums.x + sums.y) + (sums.z + sums.w);
    for (var p = whole; p < plane_len; p++) {
        sum += f32(x[start + p]);
    }
    features[params.out_offset + i] = sum / f32(plane_len);
}

// Here, y is dx.
@compute @workgroup_size(256)
fn global_average_pool_backward(at: Invocation) {
    let i = index256(at);
    if i < params.count {
        let plane_len = params.h * params.w;
        y[params.out_offset + i] = real(dfeatures[params.in_offset + i / plane_len] / f32(plane_len));
    }
}
