//! The kernels that make views, on every device: against files made with PyTorch, against float64 loops, and against
//! each other.

#[path = "../devices/mod.rs"]
mod devices;

mod color;
mod compare;
mod errors;
mod golden;
mod images;
mod resized_crop;
mod same_view;
mod uniform;
