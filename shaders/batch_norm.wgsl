// Batch norm of images x [N, C, H, W] over N, H, W of each channel c; m = N H W.
//
//   statistics_of_split, merge_statistics
//                      mean_c = sum x / m, variance_c = sum (x - mean_c)^2 / m
//   normalize          y = xhat gamma_c + beta_c with xhat = (x - mean_c) / sqrt(variance_c + eps);
//                      if `rectified`, max(y, 0)
//   normalize_add_relu y = max(xhat gamma_c + beta_c + shortcut, 0)
//   normalize_batch, normalize_batch_add_relu  the same with the statistics of x
//   gradient_sums_of_split  dbeta_c = sum dy, dgamma_c = sum dy xhat; if `rectified`, dy counts as
//                      0 unless xhat gamma_c + beta_c > 0
//   gradient_sums_add_relu  the same, where dy counts as 0 unless the result > 0, and y = this dy
//   input_gradient     gamma_c / sqrt(variance_c + eps) (dy - dbeta_c / m - xhat dgamma_c / m);
//                      if the statistics are constants, the first term only; `rectified` as above
//   input_gradient_in_place  the same, with x in y; overwrites it
//   evaluation_dx      the first term, from dy only; if `rectified`, 0 unless the result y > 0
//   update_running     running = (1 - momentum) running + momentum batch
//   update_averages    averages = (1 - momentum) averages + momentum factors values
//
// Sums have two steps. A workgroup sums one channel over images_per_split images, a split, into a
// row of `partials` (statistics_of_split, gradient_sums_of_split). Then each workgroup that uses
// the sums merges the rows of its channel: lane l < 64 takes the rows l, l + 64, .. in order, and a
// tree of fixed shape merges the lanes. The workgroup of the first split stores the result. This
// takes less time than one more dispatch, since there are few splits.
//
// In the first step, the variance of a split is computed relative to the mean of the pixels that
// its lanes load first, and then corrected to the mean of the split (Chan, Golub and LeVeque 1983).
// So each split is read once, and a mean far from 0 loses no precision.
//
// In the kernels over pixels, a workgroup processes one channel of some images: 256 >> lanes_log2
// planes at a time, with 1 << lanes_log2 lanes each. So small planes occupy all lanes, and no
// element needs a division. Bindings contain whole images, or some channels of one image that is
// larger than a binding. The first plane starts at `offset`.
//
// The variant vectors loads four pixels at a time and requires planes of whole vec4s. The f16
// variants have f16 x, dy, y and shortcut; all values per channel are f32 there too.
#variant elements WIDTH=1
#variant vectors WIDTH=4

#f16

#if F16
enable f16;
#end

#import grid
#import real

// WIDTH neighbouring pixels as they are stored and as they are computed, and a condition for each.
#if WIDTH == 1
alias Stored = real;
alias Pixels = f32;
alias Tests = bool;

fn total(x: Pixels) -> f32 {
    return x;
}
#else
alias Stored = real4;
alias Pixels = vec4f;
alias Tests = vec4<bool>;

fn total(x: Pixels) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}
#end

// max(x, 0), but NaN if x is NaN.
fn rectify(x: Pixels) -> Pixels {
    return select(x, Pixels(0.0), x < Pixels(0.0));
}

struct Params {
    // The number of bound channels, and the index of the first one.
    channels: u32,
    first_channel: u32,
    images: u32,
    // H W, and the start of the first plane, both in units of WIDTH pixels.
    plane_len: u32,
    offset: u32,
    lanes_log2: u32,
    // The number of all channels, which is the length of a row of `partials`.
    all_channels: u32,
    // Images per split, the index of the first bound split, and the number of all splits.
    images_per_split: u32,
    first_split: u32,
    splits: u32,
    // m, and 1 if the statistics are those of the batch.
    count: f32,
    training: u32,
    eps: f32,
    // update_running; `unbiased` is m / (m - 1).
    momentum: f32,
    unbiased: f32,
    // 1 if the result is rectified.
    rectified: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Stored>;
// A kernel uses one of these two.
@group(0) @binding(2) var<storage, read> dy: array<Stored>;
@group(0) @binding(2) var<storage, read> shortcut: array<Stored>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> variance: array<f32>;
@group(0) @binding(5) var<storage, read> gamma: array<f32>;
@group(0) @binding(6) var<storage, read> beta: array<f32>;
// Per channel: mean, sum of squared deviations and count; or the sums of dy and of dy xhat, mean,
// and gamma / deviation.
@group(0) @binding(7) var<storage, read_write> partials: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> new_mean: array<f32>;
@group(0) @binding(9) var<storage, read_write> new_variance: array<f32>;
@group(0) @binding(11) var<storage, read_write> y: array<Stored>;
@group(0) @binding(12) var<storage, read> gate: array<u32>;
@group(0) @binding(13) var<storage, read_write> dbeta: array<f32>;
@group(0) @binding(14) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(15) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(16) var<storage, read_write> running_variance: array<f32>;
// The rectified result of the forward pass.
@group(0) @binding(17) var<storage, read> result: array<Stored>;
@group(0) @binding(18) var<storage, read_write> averages: array<f32>;
@group(0) @binding(19) var<storage, read> values: array<f32>;
@group(0) @binding(20) var<storage, read> factors: array<f32>;

const WORKGROUP: u32 = 256u;

var<workgroup> scratch: array<vec2f, 256>;
var<workgroup> columns: array<vec2f, 16>;

// The sum of `value` over the workgroup, in a fixed order: 16 lanes add 16 numbers each, and then
// one lane adds their sums.
fn workgroup_sum(lane: u32, value: vec2f) -> vec2f {
    scratch[lane] = value;
    workgroupBarrier();
    if lane < 16u {
        var sum = scratch[lane];
        for (var other = lane + 16u; other < 256u; other += 16u) {
            sum += scratch[other];
        }
        columns[lane] = sum;
    }
    workgroupBarrier();
    if lane == 0u {
        var sum = columns[0];
        for (var other = 1u; other < 16u; other++) {
            sum += columns[other];
        }
        columns[0] = sum;
    }
    workgroupBarrier();
    return columns[0];
}

// The part of a split that one lane processes: every image_step'th image from lane_image on, and
// every pixel_step'th unit of each plane from `pixel` on.
struct Walk {
    channel: u32,
    split: u32,
    first_image: u32,
    end_image: u32,
    lane_image: u32,
    pixel: u32,
    pixel_step: u32,
    image_step: u32,
}

fn walk(at: Invocation) -> Walk {
    let index = workgroup_index(at);
    var own: Walk;
    own.channel = index % params.channels;
    own.split = index / params.channels;
    own.first_image = min(own.split * params.images_per_split, params.images);
    own.end_image = min(own.first_image + params.images_per_split, params.images);
    own.lane_image = own.first_image + (at.lane >> params.lanes_log2);
    own.pixel_step = 1u << params.lanes_log2;
    own.pixel = at.lane & (own.pixel_step - 1u);
    own.image_step = WORKGROUP >> params.lanes_log2;
    return own;
}

// The start of the plane in an image of the split.
fn plane_start(own: Walk, image: u32) -> u32 {
    return params.offset + (image * params.channels + own.channel) * params.plane_len;
}

// One workgroup per split and channel; surplus workgroups have no images.
@compute @workgroup_size(WORKGROUP)
fn statistics_of_split(at: Invocation) {
    let own = walk(at);
    var first = vec2f(0.0);
    if own.lane_image < own.end_image && own.pixel < params.plane_len {
        first = vec2f(total(Pixels(x[plane_start(own, own.lane_image) + own.pixel])), ${WIDTH}.0);
    }
    first = workgroup_sum(at.lane, first);
    let center = first.x / max(first.y, 1.0);
    var sum = Pixels(0.0);
    var squares = Pixels(0.0);
    for (var image = own.lane_image; image < own.end_image; image += own.image_step) {
        let start = plane_start(own, image);
        for (var p = own.pixel; p < params.plane_len; p += own.pixel_step) {
            let d = Pixels(x[start + p]) - center;
            sum += d;
            squares += d * d;
        }
    }
    let about = workgroup_sum(at.lane, vec2f(total(sum), total(squares)));
    let count = f32((own.end_image - own.first_image) * params.plane_len * ${WIDTH}u);
    if at.lane == 0u && count > 0.0 {
        let row = (params.first_split + own.split) * params.all_channels;
        let rest = about.x / count;
        partials[row + params.first_channel + own.channel] = vec4f(center + rest, about.y - about.x * rest, count, 0.0);
    }
}

const MERGING: u32 = 64u;

var<workgroup> merging: array<vec4f, MERGING>;

// Mean, sum of squared deviations and count of two sets of pixels, either of which may be empty.
fn merged(one: vec4f, other: vec4f) -> vec4f {
    let count = one.z + other.z;
    let d = other.x - one.x;
    let part = other.z / max(count, 1.0);
    return vec4f(one.x + d * part, one.y + other.y + d * d * one.z * part, count, 0.0);
}

// Mean and variance of channel c, from the partial sums of its splits. Barriers: the whole
// workgroup calls it.
fn statistics_of(lane: u32, c: u32) -> vec2f {
    if lane < MERGING {
        var own = vec4f(0.0);
        for (var split = lane; split < params.splits; split += MERGING) {
            own = merged(own, partials[split * params.all_channels + c]);
        }
        merging[lane] = own;
    }
    workgroupBarrier();
    for (var step = MERGING / 2u; step > 0u; step /= 2u) {
        if lane < step {
            merging[lane] = merged(merging[lane], merging[lane + step]);
        }
        workgroupBarrier();
    }
    return vec2f(merging[0].x, max(merging[0].y / merging[0].z, 0.0));
}

#if F16 == 0
// One workgroup per channel; surplus workgroups store nothing.
@compute @workgroup_size(MERGING)
fn merge_statistics(at: Invocation) {
    let c = workgroup_index(at);
    let found = statistics_of(at.lane, min(c, params.all_channels - 1u));
    if at.lane == 0u && c < params.all_channels {
        new_mean[c] = found.x;
        new_variance[c] = found.y;
    }
}
#end

// y = (x - center) factor + shift for one channel.
struct Line {
    center: f32,
    factor: f32,
    shift: f32,
}

fn line_of(own: Walk) -> Line {
    let c = params.first_channel + own.channel;
    return Line(mean[c], gamma[c] / sqrt(variance[c] + params.eps), beta[c]);
}

// The workgroup computes the statistics, and that of the first split stores them.
fn line_of_batch(own: Walk, lane: u32) -> Line {
    let c = params.first_channel + own.channel;
    let found = statistics_of(lane, c);
    if lane == 0u && params.first_split + own.split == 0u {
        new_mean[c] = found.x;
        new_variance[c] = found.y;
    }
    return Line(found.x, gamma[c] / sqrt(found.y + params.eps), beta[c]);
}

#for of_batch in 0..2
@compute @workgroup_size(WORKGROUP)
#if of_batch
fn normalize_batch(at: Invocation) {
    let own = walk(at);
    let line = line_of_batch(own, at.lane);
#else
fn normalize(at: Invocation) {
    let own = walk(at);
    let line = line_of(own);
#end
    for (var image = own.lane_image; image < own.end_image; image += own.image_step) {
        let start = plane_start(own, image);
        for (var p = own.pixel; p < params.plane_len; p += own.pixel_step) {
            let value = (Pixels(x[start + p]) - line.center) * line.factor + line.shift;
            y[start + p] = Stored(select(value, rectify(value), params.rectified == 1u));
        }
    }
}

@compute @workgroup_size(WORKGROUP)
#if of_batch
fn normalize_batch_add_relu(at: Invocation) {
    let own = walk(at);
    let line = line_of_batch(own, at.lane);
#else
fn normalize_add_relu(at: Invocation) {
    let own = walk(at);
    let line = line_of(own);
#end
    for (var image = own.lane_image; image < own.end_image; image += own.image_step) {
        let start = plane_start(own, image);
        for (var p = own.pixel; p < params.plane_len; p += own.pixel_step) {
            let value = (Pixels(x[start + p]) - line.center) * line.factor + line.shift;
            y[start + p] = Stored(rectify(value + Pixels(shortcut[start + p])));
        }
    }
}

#end
@compute @workgroup_size(WORKGROUP)
fn gradient_sums_of_split(at: Invocation) {
    let own = walk(at);
    let c = params.first_channel + own.channel;
    let line = line_of(own);
    let all_pass = Tests(params.rectified == 0u);
    var sum = Pixels(0.0);
    var with_x = Pixels(0.0);
    for (var image = own.lane_image; image < own.end_image; image += own.image_step) {
        let start = plane_start(own, image);
        for (var p = own.pixel; p < params.plane_len; p += own.pixel_step) {
            let centered = Pixels(x[start + p]) - line.center;
            let passes = all_pass | (centered * line.factor + line.shift > Pixels(0.0));
            let d = select(Pixels(0.0), Pixels(dy[start + p]), passes);
            sum += d;
            with_x += d * centered;
        }
    }
    store_sums(at.lane, own, vec2f(total(sum), total(with_x)));
}

// Adds the sums of the lanes, and stores the row of the split.
fn store_sums(lane: u32, own: Walk, of_lane: vec2f) {
    let c = params.first_channel + own.channel;
    let sums = workgroup_sum(lane, of_lane);
    if lane == 0u && own.first_image < params.images {
        let row = (params.first_split + own.split) * params.all_channels;
        let deviation = sqrt(variance[c] + params.eps);
        partials[row + c] = vec4f(sums.x, sums.y / deviation, mean[c], gamma[c] / deviation);
    }
}

// In place, y has dy and is overwritten.
#for in_place in 0..2
@compute @workgroup_size(WORKGROUP)
#if in_place
fn gradient_sums_add_relu_in_place(at: Invocation) {
#else
fn gradient_sums_add_relu(at: Invocation) {
#end
    let own = walk(at);
    let center = mean[params.first_channel + own.channel];
    var sum = Pixels(0.0);
    var with_x = Pixels(0.0);
    for (var image = own.lane_image; image < own.end_image; image += own.image_step) {
        let start = plane_start(own, image);
        for (var p = own.pixel; p < params.plane_len; p += own.pixel_step) {
            let passes = Pixels(result[start + p]) > Pixels(0.0);
#if in_place
            let d = select(Pixels(0.0), Pixels(y[start + p]), passes);
#else
            let d = select(Pixels(0.0), Pixels(dy[start + p]), passes);
#end
            y[start + p] = Stored(d);
            sum += d;
            with_x += d * (Pixels(x[start + p]) - center);
        }
    }
    store_sums(at.lane, own, vec2f(total(sum), total(with_x)));
}

#end
// The sums of dy and of dy xhat of channel c. Barriers: the whole workgroup calls it.
fn gradient_sums_of(lane: u32, c: u32) -> vec2f {
    if lane < MERGING {
        var own = vec2f(0.0);
        for (var split = lane; split < params.splits; split += MERGING) {
            own += partials[split * params.all_channels + c].xy;
        }
        merging[lane] = vec4f(own, 0.0, 0.0);
    }
    workgroupBarrier();
    for (var step = MERGING / 2u; step > 0u; step /= 2u) {
        if lane < step {
            merging[lane] += merging[lane + step];
        }
        workgroupBarrier();
    }
    return merging[0].xy;
}

// Mean, gamma / deviation, dbeta / m, and dgamma / m / deviation of a channel. The workgroup of the
// first split stores dbeta and dgamma.
fn coefficients_of(lane: u32, own: Walk) -> vec4f {
    let c = params.first_channel + own.channel;
    let sums = gradient_sums_of(lane, c);
    if lane == 0u && params.first_split + own.split == 0u {
        dbeta[c] = sums.x;
        dgamma[c] = sums.y;
    }
    let means = sums / params.count;
    let deviation = sqrt(variance[c] + params.eps);
    let through = select(vec2f(0.0), vec2f(means.x, means.y / deviation), params.training == 1u);
    return vec4f(partials[c].zw, through);
}

// dx of some pixels of a channel.
fn gradient_of(of_channel: vec4f, shift: f32, value: Pixels, back: Pixels) -> Pixels {
    let centered = value - of_channel.x;
    let passes = Tests(params.rectified == 0u) | (centered * of_channel.y + shift > Pixels(0.0));
    let through = of_channel.z + centered * of_channel.w;
    return of_channel.y * (select(Pixels(0.0), back, passes) - through);
}

#for in_place in 0..2
@compute @workgroup_size(WORKGROUP)
#if in_place
fn input_gradient_in_place(at: Invocation) {
#else
fn input_gradient(at: Invocation) {
#end
    let own = walk(at);
    let c = params.first_channel + own.channel;
    let of_channel = coefficients_of(at.lane, own);
    let shift = beta[c];
    for (var image = own.lane_image; image < own.end_image; image += own.image_step) {
        let start = plane_start(own, image);
        for (var p = own.pixel; p < params.plane_len; p += own.pixel_step) {
#if in_place
            let value = Pixels(y[start + p]);
#else
            let value = Pixels(x[start + p]);
#end
            y[start + p] = Stored(gradient_of(of_channel, shift, value, Pixels(dy[start + p])));
        }
    }
}

#end
@compute @workgroup_size(WORKGROUP)
fn evaluation_dx(at: Invocation) {
    let own = walk(at);
    let c = params.first_channel + own.channel;
    let factor = gamma[c] / sqrt(variance[c] + params.eps);
    let all_pass = Tests(params.rectified == 0u);
    for (var image = own.lane_image; image < own.end_image; image += own.image_step) {
        let start = plane_start(own, image);
        for (var p = own.pixel; p < params.plane_len; p += own.pixel_step) {
            let passes = all_pass | (Pixels(result[start + p]) > Pixels(0.0));
            y[start + p] = Stored(select(Pixels(0.0), Pixels(dy[start + p]) * factor, passes));
        }
    }
}

#if F16 == 0
@compute @workgroup_size(256)
fn update_running(at: Invocation) {
    let c = index256(at);
    if c >= params.all_channels || gate[0] != 0u {
        return;
    }
    let keep = 1.0 - params.momentum;
    running_mean[c] = keep * running_mean[c] + params.momentum * mean[c];
    running_variance[c] = keep * running_variance[c] + params.momentum * (params.unbiased * variance[c]);
}

@compute @workgroup_size(256)
fn update_averages(at: Invocation) {
    let i = index256(at);
    if i < params.all_channels && gate[0] == 0u {
        let keep = 1.0 - params.momentum;
        averages[i] = keep * averages[i] + params.momentum * (factors[i] * values[i]);
    }
}
#end
