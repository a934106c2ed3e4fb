# The images of Carillon, one target each:
#
#   docker build --target producer -t carillon/producer .
#   docker build --target bff      -t carillon/bff      .
#   docker build --target frontend -t carillon/frontend .
#
# It needs BuildKit, which Docker has used by itself since version 23. Nothing here depends on the
# architecture: `--platform` builds each one natively. What cargo downloads and compiles is kept between
# builds, so that a change compiles no dependency anew.

# The version is that of rust-toolchain.toml, which stays outside: it asks for tools that no image needs.
FROM rust:1.95.0-slim-trixie AS source
RUN rustup target add wasm32-unknown-unknown
WORKDIR /src
COPY . .

# Cargo goes by the time of a change, and the files of another checkout may be older than what is kept
# from this one. So every file is touched: our crates are compiled anew, the dependencies are not.
FROM source AS servers
ARG PROFILE=release
RUN --mount=type=cache,id=carillon-cargo,target=/usr/local/cargo/registry \
    --mount=type=cache,id=carillon-servers,target=/src/target,sharing=locked \
    set -eu; \
    find . -path ./target -prune -o -type f -exec touch {} +; \
    case "$PROFILE" in dev) folder=debug ;; *) folder=$PROFILE ;; esac; \
    target=target/$(uname -m); \
    cargo build --locked --profile "$PROFILE" --target-dir "$target" \
      --package carillon-producer --bin producer --package carillon-bff --bin bff; \
    install -D --target-directory /out "$target/$folder/producer" "$target/$folder/bff"

FROM source AS viewer
RUN --mount=type=cache,id=carillon-cargo,target=/usr/local/cargo/registry \
    --mount=type=cache,id=carillon-viewer,target=/src/target,sharing=locked \
    set -eu; \
    find . -path ./target -prune -o -type f -exec touch {} +; \
    target=target/$(uname -m); \
    cargo run --locked --target-dir "$target" --package xtask -- --target-dir "$target" viewer; \
    cp -r "$target/viewer" /viewer

# The public image lets its program take ports below 1024 by a file capability. A container that has
# dropped all capabilities cannot even start such a file; a plain copy is without it.
FROM caddy:2.11.7-alpine AS caddy
RUN cp /usr/bin/caddy /caddy

FROM debian:trixie-20261005-slim AS producer
COPY --from=servers /out/producer /usr/local/bin/producer
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["producer"]
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="carillon/producer" \
      org.opencontainers.image.description="Writes one notification a second, or one for each line of input, to the list in Redis" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie-20261005-slim" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

FROM debian:trixie-20261005-slim AS bff
COPY --from=servers /out/bff /usr/local/bin/bff
# A container's loopback address is reached by nobody outside it.
ENV LISTEN=0.0.0.0:8081 ADMIN_LISTEN=0.0.0.0:9081
EXPOSE 8081 9081
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["bff", "check"]
ENTRYPOINT ["bff"]
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="carillon/bff" \
      org.opencontainers.image.description="A replica: races for notifications and brings them to WebSocket and SSE readers" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie-20261005-slim" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

FROM alpine:3.23.5 AS frontend
COPY --from=caddy /caddy /usr/local/bin/caddy
COPY frontend/Caddyfile /etc/caddy/Caddyfile
COPY --from=viewer /viewer /srv
# Caddy notes where it was last started; nothing of that outlives a container.
ENV XDG_CONFIG_HOME=/tmp XDG_DATA_HOME=/tmp
EXPOSE 8080
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
  CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"]
# The cookie of the front door is a keyed hash of a replica's address. A door without a COOKIE_SECRET makes one
# at each start: readers are cut when it stops anyway, and several doors for the same browsers need the same.
ENTRYPOINT ["sh", "-c", "COOKIE_SECRET=${COOKIE_SECRET:-$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n')} exec caddy \"$@\"", "caddy"]
CMD ["run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="carillon/frontend" \
      org.opencontainers.image.description="The viewer, and the sticky front door of the replicas" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="docker.io/library/alpine:3.23.5" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
