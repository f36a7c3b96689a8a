// Colour changes of images [N, 3, H, W], with the definitions of torchvision for float images: up
// to five steps per image, in any order. Each result is clamped to [0, 1].
//
// One workgroup of 256 per image, along one dimension. Each invocation changes its own pixels; only
// the mean for the contrast depends on other pixels.

#import grid

const NOTHING: u32 = 0u;
const BRIGHTNESS: u32 = 1u;
const CONTRAST: u32 = 2u;
const SATURATION: u32 = 3u;
const HUE: u32 = 4u;
const GRAYSCALE: u32 = 5u;
const STEPS: u32 = 5u;

struct Params {
    images: u32,
    // Pixels per image.
    pixels: u32,
    // Elements of a binding before its first image.
    x_offset: u32,
    y_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
// Per image: five steps, then the bits of their five factors.
@group(0) @binding(2) var<storage, read> transforms: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

var<workgroup> shared_step: u32;
var<workgroup> sums: array<f32, 256>;

fn load(start: u32) -> vec3f {
    return vec3f(y[start], y[start + params.pixels], y[start + 2u * params.pixels]);
}

fn store(start: u32, pixel: vec3f) {
    y[start] = pixel.x;
    y[start + params.pixels] = pixel.y;
    y[start + 2u * params.pixels] = pixel.z;
}

fn unit(x: vec3f) -> vec3f {
    return clamp(x, vec3f(0.0), vec3f(1.0));
}

fn luma(pixel: vec3f) -> f32 {
    return 0.2989 * pixel.x + 0.587 * pixel.y + 0.114 * pixel.z;
}

// Hue in turns, saturation and value. The hue of grey is 0.
fn rgb_to_hsv(pixel: vec3f) -> vec3f {
    let value = max(max(pixel.x, pixel.y), pixel.z);
    let range = value - min(min(pixel.x, pixel.y), pixel.z);
    if range == 0.0 {
        return vec3f(0.0, 0.0, value);
    }
    // The hue in sixths of a turn, computed from the largest component.
    var sixths = 4.0 + (pixel.x - pixel.y) / range;
    if value == pixel.x {
        sixths = (pixel.y - pixel.z) / range;
    } else if value == pixel.y {
        sixths = 2.0 + (pixel.z - pixel.x) / range;
    }
    let hue = sixths / 6.0;
    return vec3f(hue - floor(hue), range / value, value);
}

fn hsv_to_rgb(color: vec3f) -> vec3f {
    let saturation = color.y;
    let value = color.z;
    let sector = floor(6.0 * color.x);
    let within = 6.0 * color.x - sector;
    let low = value * (1.0 - saturation);
    let falling = value * (1.0 - saturation * within);
    let rising = value * (1.0 - saturation * (1.0 - within));
    var pixel: vec3f;
    // If the hue was rounded up to 1, the sector is 6, which is equal to 0.
    switch u32(sector) % 6u {
        case 0u: { pixel = vec3f(value, rising, low); }
        case 1u: { pixel = vec3f(falling, value, low); }
        case 2u: { pixel = vec3f(low, value, rising); }
        case 3u: { pixel = vec3f(low, falling, value); }
        case 4u: { pixel = vec3f(rising, low, value); }
        default: { pixel = vec3f(value, low, falling); }
    }
    return unit(pixel);
}

// `gray` is the mean luma of the image. Only the contrast uses it.
fn change(step: u32, factor: f32, gray: f32, pixel: vec3f) -> vec3f {
    switch step {
        case BRIGHTNESS: { return unit(factor * pixel); }
        case CONTRAST: { return unit(factor * pixel + (1.0 - factor) * gray); }
        case SATURATION: { return unit(factor * pixel + (1.0 - factor) * luma(pixel)); }
        case HUE: {
            let color = rgb_to_hsv(pixel);
            let turned = color.x + factor;
            return hsv_to_rgb(vec3f(turned - floor(turned), color.y, color.z));
        }
        case GRAYSCALE: { return vec3f(luma(pixel)); }
        default: { return pixel; }
    }
}

@compute @workgroup_size(256)
fn color_transform(at: Invocation) {
    let image = workgroup_index(at);
    // Workgroups beyond the last image have no pixels. They do not return, because control flow at
    // the barriers must be uniform.
    let inside = image < params.images;
    let pixels = select(0u, params.pixels, inside);
    let x_start = params.x_offset + 3u * image * params.pixels;
    let start = params.y_offset + 3u * image * params.pixels;
    for (var i = at.lane; i < pixels; i += 256u) {
        let source = x_start + i;
        store(start + i, vec3f(x[source], x[source + params.pixels], x[source + 2u * params.pixels]));
    }
    for (var k = 0u; k < STEPS; k++) {
        var factor = 0.0;
        if inside {
            factor = bitcast<f32>(transforms[2u * STEPS * image + STEPS + k]);
        }
        if at.lane == 0u {
            shared_step = NOTHING;
            if inside {
                shared_step = transforms[2u * STEPS * image + k];
            }
        }
        let step = workgroupUniformLoad(&shared_step);
        var gray = 0.0;
        if step == CONTRAST {
            var sum = 0.0;
            for (var i = at.lane; i < pixels; i += 256u) {
                sum += luma(load(start + i));
            }
            sums[at.lane] = sum;
            for (var half = 128u; half > 0u; half /= 2u) {
                workgroupBarrier();
                if at.lane < half {
                    sums[at.lane] += sums[at.lane + half];
                }
            }
            gray = workgroupUniformLoad(&sums[0]) / f32(params.pixels);
        }
        if step != NOTHING {
            for (var i = at.lane; i < pixels; i += 256u) {
                store(start + i, change(step, factor, gray, load(start + i)));
            }
        }
    }
}
