# The program with Mesa's software Vulkan, so that `devices` lists a GPU without any hardware:
#
#   docker build --tag parallax .
#   docker run --rm parallax devices
#   docker run --rm --volume "$PWD:/data" parallax simclr --out runs/a
#
# For a graphics card, mount its driver: `--gpus all` with NVIDIA's container toolkit and
# NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility, or `--device /dev/dri` with Mesa's drivers,
# which are in the image.
# This file is checked by hadolint 2.15, and has not been built with Docker.
FROM rust:1.89-slim-trixie AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked && strip target/release/parallax

FROM debian:trixie-slim
# Debian removes the package of an earlier version, so a pinned version would fail to install.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libvulkan1 mesa-vulkan-drivers \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /source/target/release/parallax /usr/local/bin/parallax
COPY --from=build /source/LICENSE-APACHE /source/LICENSE-MIT /usr/share/doc/parallax/
# Run folders and tables of kernel variants are written here.
WORKDIR /data
ENV PARALLAX_CACHE_DIR=/data/.parallax
ENTRYPOINT ["parallax"]
CMD ["--help"]
