// Batch norm of images x [N, C, H, W] over N, H, W of each channel c; m = N H W.
//
//   statistics         mean_c = sum x / m, variance_c = sum (x - mean_c)^2 / m
//   normalize          y = (x - mean_c) / sqrt(variance_c + eps) gamma_c + beta_c, then max(y, 0) where `rectified` is 1
//   normalize_add_relu y = max((x - mean_c) / sqrt(variance_c + eps) gamma_c + beta_c + shortcut, 0)
//   gradient sums      dbeta_c = sum dy, dgamma_c = sum dy xhat, with xhat = (x - mean_c) / sqrt(variance_c + eps);
//                      where `rectified` is 1, dy is 0 wherever xhat gamma_c + beta_c is not above 0
//   input_gradient     dx = gamma_c / sqrt(variance_c + eps) (dy - dbeta_c / m - xhat dgamma_c / m)
//                      where the statistics are the batch's; where they are constants, the first term alone;
//                      `rectified` as above
//   evaluation_dx      the first term from dy alone; where `rectified` is 1, 0 wherever the result y was not above 0
//   update_running     running = (1 - momentum) running + momentum batch
//
// Sums are taken in two steps. A workgroup sums one channel over images_per_split images (statistics_of_split,
// gradient_sums_of_split) into a row of `partials`; then an invocation a channel adds the rows up in order
// (merge_statistics, merge_gradient_sums). A split's variance is taken about its own mean, whose rounding is then
// corrected (Chan, Golub and LeVeque 1983), so that a mean far from zero costs no digits; the second reading finds the
// split in a cache.
//
// The 256 lanes of a workgroup stand on 256 >> lanes_log2 planes at once, 1 << lanes_log2 lanes on each, so that small
// planes keep all of them busy and no element costs a division. Buffers hold whole images, or some channels of one
// image where an image is larger than a binding; their first plane stands `offset` elements behind their start.
// The twin for f16 has f16 x, dy, y and shortcut; what belongs to a channel is f32 there too.

#f16

#if F16
enable f16;
#end

#import grid
#import real

struct Params {
    // Of the planes bound: channels, and the number of the first.
    channels: u32,
    first_channel: u32,
    images: u32,
    // Height times width.
    plane_len: u32,
    offset: u32,
    lanes_log2: u32,
    // Channels of the whole batch: the length of a row of `partials`.
    all_channels: u32,
    // Splits: images in each, the number of the first one here, and how many there are in the whole batch.
    images_per_split: u32,
    first_split: u32,
    splits: u32,
    // normalize, input_gradient: planes that a workgroup takes.
    planes_per_group: u32,
    // m, and 1 where the statistics are the batch's.
    count: f32,
    training: u32,
    eps: f32,
    // update_running; `unbiased` is m / (m - 1).
    momentum: f32,
    unbiased: f32,
    // 1 where the result is rectified.
    rectified: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<real>;
// One of the two is bound.
@group(0) @binding(2) var<storage, read> dy: array<real>;
@group(0) @binding(2) var<storage, read> shortcut: array<real>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> variance: array<f32>;
@group(0) @binding(5) var<storage, read> gamma: array<f32>;
@group(0) @binding(6) var<storage, read> beta: array<f32>;
// x, y, z of a channel: its mean, sum of squares about it and count; or its sums of dy and of dy xhat.
@group(0) @binding(7) var<storage, read_write> partials: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> new_mean: array<f32>;
@group(0) @binding(9) var<storage, read_write> new_variance: array<f32>;
// Of a channel: mean, gamma / deviation, dbeta / m, and dgamma / m / deviation.
@group(0) @binding(10) var<storage, read_write> coefficients: array<vec4f>;
@group(0) @binding(11) var<storage, read_write> y: array<real>;
@group(0) @binding(12) var<storage, read> gate: array<u32>;
@group(0) @binding(13) var<storage, read_write> dbeta: array<f32>;
@group(0) @binding(14) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(15) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(16) var<storage, read_write> running_variance: array<f32>;
// The rectified result of the forward pass, bound in the place of x.
@group(0) @binding(1) var<storage, read> result: array<real>;

var<workgroup> scratch: array<vec2f, 256>;

// The sum of `value` over the workgroup, in a fixed order.
fn workgroup_sum(lane: u32, value: vec2f) -> vec2f {
    scratch[lane] = value;
    workgroupBarrier();
    for (var step = 128u; step > 0u; step /= 2u) {
        if lane < step {
            scratch[lane] += scratch[lane + step];
        }
        workgroupBarrier();
    }
    let sum = scratch[0];
    workgroupBarrier();
    return sum;
}

// What one lane reads of a split: every image_step'th image from lane_image on, and of each every pixel_step'th pixel
// from `pixel` on.
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
    let group = workgroup_index(at);
    var own: Walk;
    own.channel = group % params.channels;
    own.split = group / params.channels;
    own.first_image = own.split * params.images_per_split;
    own.end_image = min(own.first_image + params.images_per_split, params.images);
    own.lane_image = own.first_image + (at.lane >> params.lanes_log2);
    own.pixel_step = 1u << params.lanes_log2;
    own.pixel = at.lane & (own.pixel_step - 1u);
    own.image_step = 256u >> params.lanes_log2;
    return own;
}

// Where the plane of an image of the split begins.
fn plane_start(own: Walk, image: u32) -> u32 {
    return params.offset + (image * params.channels + own.channel) * params.plane_len;
}

// Workgroups: splits x channels, where the grid may be longer.
@compute @workgroup_size(256)
fn statistics_of_split(at: Invocation) {
    let own = walk(at);
    let count = f32((max(own.end_image, own.first_image) - own.first_image) * params.plane_len);
    var total = 0.0;
    for (var image = own.lane_image; image < own.end_image; image += own.image_step) {
        let start = plane_start(own, image);
        for (var p = own.pixel; p < params.plane_len; p += own.pixel_step) {
            total += f32(x[start + p]);
        }
    }
    let center = workgroup_sum(at.lane, vec2f(total, 0.0)).x / count;
    var about = vec2f(0.0);
    for (var image = own.lane_image; image < own.end_image; image += own.image_step) {
        let start = plane_start(own, image);
        for (var p = own.pixel; p < params.plane_len; p += own.pixel_step) {
            let d = f32(x[start + p]) - center;
            about += vec2f(d, d * d);
        }
    }
    about = workgroup_sum(at.lane, about);
    if at.lane == 0u && count > 0.0 {
        let row = (params.first_split + own.split) * params.all_channels;
        let rest = about.x / count;
        partials[row + params.first_channel + own.channel] = vec4f(center + rest, about.y - about.x * rest, count, 0.0);
    }
}

#if F16
#else
@compute @workgroup_size(256)
fn merge_statistics(at: Invocation) {
    let c = index256(at);
    if c >= params.all_channels {
        return;
    }
    var merged = partials[c];
    for (var split = 1u; split < params.splits; split++) {
        let other = partials[split * params.all_channels + c];
        let count = merged.z + other.z;
        let d = other.x - merged.x;
        let part = other.z / count;
        merged = vec4f(merged.x + d * part, merged.y + other.y + d * d * merged.z * part, count, 0.0);
    }
    new_mean[c] = merged.x;
    new_variance[c] = max(merged.y / merged.z, 0.0);
}
#end

// max(x, 0) that keeps NaN: x < 0 is false for it.
fn rectify(x: f32) -> f32 {
    return select(x, 0.0, x < 0.0);
}

// A channel's y = (x - center) factor + shift.
struct Line {
    center: f32,
    factor: f32,
    shift: f32,
}

fn line_of(plane: u32) -> Line {
    let c = params.first_channel + plane % params.channels;
    return Line(mean[c], gamma[c] / sqrt(variance[c] + params.eps), beta[c]);
}

@compute @workgroup_size(256)
fn normalize(at: Invocation) {
    let pixel_step = 1u << params.lanes_log2;
    let first = workgroup_index(at) * params.planes_per_group;
    let end = min(first + params.planes_per_group, params.images * params.channels);
    for (var plane = first + (at.lane >> params.lanes_log2); plane < end; plane += 256u >> params.lanes_log2) {
        let line = line_of(plane);
        let start = params.offset + plane * params.plane_len;
        for (var p = at.lane & (pixel_step - 1u); p < params.plane_len; p += pixel_step) {
            let value = (f32(x[start + p]) - line.center) * line.factor + line.shift;
            y[start + p] = real(select(value, rectify(value), params.rectified == 1u));
        }
    }
}

@compute @workgroup_size(256)
fn normalize_add_relu(at: Invocation) {
    let pixel_step = 1u << params.lanes_log2;
    let first = workgroup_index(at) * params.planes_per_group;
    let end = min(first + params.planes_per_group, params.images * params.channels);
    for (var plane = first + (at.lane >> params.lanes_log2); plane < end; plane += 256u >> params.lanes_log2) {
        let line = line_of(plane);
        let start = params.offset + plane * params.plane_len;
        for (var p = at.lane & (pixel_step - 1u); p < params.plane_len; p += pixel_step) {
            let value = (f32(x[start + p]) - line.center) * line.factor + line.shift;
            y[start + p] = real(rectify(value + f32(shortcut[start + p])));
        }
    }
}

@compute @workgroup_size(256)
fn gradient_sums_of_split(at: Invocation) {
    let own = walk(at);
    let c = params.first_channel + own.channel;
    let line = line_of(own.channel);
    var sums = vec2f(0.0);
    for (var image = own.lane_image; image < own.end_image; image += own.image_step) {
        let start = plane_start(own, image);
        for (var p = own.pixel; p < params.plane_len; p += own.pixel_step) {
            let centered = f32(x[start + p]) - line.center;
            let passes = params.rectified == 0u || centered * line.factor + line.shift > 0.0;
            let d = select(0.0, f32(dy[start + p]), passes);
            sums += vec2f(d, d * centered);
        }
    }
    sums = workgroup_sum(at.lane, sums);
    if at.lane == 0u && own.first_image < params.images {
        let row = (params.first_split + own.split) * params.all_channels;
        let deviation = sqrt(variance[c] + params.eps);
        partials[row + c] = vec4f(sums.x, sums.y / deviation, 0.0, 0.0);
    }
}

#if F16
#else
@compute @workgroup_size(256)
fn merge_gradient_sums(at: Invocation) {
    let c = index256(at);
    if c >= params.all_channels {
        return;
    }
    var sums = vec2f(0.0);
    for (var split = 0u; split < params.splits; split++) {
        sums += partials[split * params.all_channels + c].xy;
    }
    dbeta[c] = sums.x;
    dgamma[c] = sums.y;
    let deviation = sqrt(variance[c] + params.eps);
    let means = sums / params.count;
    let through = select(vec2f(0.0), vec2f(means.x, means.y / deviation), params.training == 1u);
    coefficients[c] = vec4f(mean[c], gamma[c] / deviation, through);
}
#end

@compute @workgroup_size(256)
fn input_gradient(at: Invocation) {
    let pixel_step = 1u << params.lanes_log2;
    let first = workgroup_index(at) * params.planes_per_group;
    let end = min(first + params.planes_per_group, params.images * params.channels);
    for (var plane = first + (at.lane >> params.lanes_log2); plane < end; plane += 256u >> params.lanes_log2) {
        let c = params.first_channel + plane % params.channels;
        let of_channel = coefficients[c];
        let shift = beta[c];
        let start = params.offset + plane * params.plane_len;
        for (var p = at.lane & (pixel_step - 1u); p < params.plane_len; p += pixel_step) {
            let centered = f32(x[start + p]) - of_channel.x;
            let passes = params.rectified == 0u || centered * of_channel.y + shift > 0.0;
            let through = of_channel.z + centered * of_channel.w;
            y[start + p] = real(of_channel.y * (select(0.0, f32(dy[start + p]), passes) - through));
        }
    }
}

@compute @workgroup_size(256)
fn evaluation_dx(at: Invocation) {
    let pixel_step = 1u << params.lanes_log2;
    let first = workgroup_index(at) * params.planes_per_group;
    let end = min(first + params.planes_per_group, params.images * params.channels);
    for (var plane = first + (at.lane >> params.lanes_log2); plane < end; plane += 256u >> params.lanes_log2) {
        let c = params.first_channel + plane % params.channels;
        let factor = gamma[c] / sqrt(variance[c] + params.eps);
        let start = params.offset + plane * params.plane_len;
        for (var p = at.lane & (pixel_step - 1u); p < params.plane_len; p += pixel_step) {
            let passes = params.rectified == 0u || f32(result[start + p]) > 0.0;
            y[start + p] = real(select(0.0, f32(dy[start + p]) * factor, passes));
        }
    }
}

#if F16
#else
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
#end
