# For compose.yaml: builds the binaries inside, so that Docker is all one needs. The images are those of build.sh.
ARG RUST_IMAGE=rust:1.95.0-bookworm
FROM ${RUST_IMAGE} AS build
# The image's own toolchain is the pinned one; this keeps rustup from fetching what only the tests need.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked \
        --target "$(uname -m)-unknown-linux-gnu" --bins \
        -p roundsman-cli -p roundsman-product -p roundsman-order -p roundsman-inventory \
    && mkdir /out \
    && cd target/*/release && cp roundsman product order inventory /out/

FROM scratch AS discovery
COPY --from=build /out/roundsman /roundsman
USER 65534:65534
EXPOSE 5555 5556
HEALTHCHECK --interval=2s --timeout=2s --retries=15 CMD ["/roundsman", "status"]
ENTRYPOINT ["/roundsman"]
CMD ["serve", "--rpc", "0.0.0.0:5555", "--http", "0.0.0.0:5556", "--store", "redis://redis_cs:6379/0"]

FROM scratch AS product
COPY --from=build /out/product /product
USER 65534:65534
EXPOSE 7070
HEALTHCHECK --interval=2s --timeout=2s --retries=15 CMD ["/product", "--listen", "0.0.0.0:7070", "--probe"]
ENTRYPOINT ["/product"]
CMD ["--listen", "0.0.0.0:7070", "--advertise", "product:7070", "--discovery", "discovery:5555"]

FROM scratch AS order
COPY --from=build /out/order /order
USER 65534:65534
EXPOSE 6060
HEALTHCHECK --interval=2s --timeout=2s --retries=15 CMD ["/order", "--listen", "0.0.0.0:6060", "--probe"]
ENTRYPOINT ["/order"]
CMD ["--listen", "0.0.0.0:6060", "--advertise", "order:6060", "--discovery", "discovery:5555"]

FROM scratch AS inventory
COPY --from=build /out/inventory /inventory
USER 65534:65534
EXPOSE 8080
HEALTHCHECK --interval=2s --timeout=2s --retries=15 CMD ["/inventory", "--listen", "0.0.0.0:8080", "--probe"]
ENTRYPOINT ["/inventory"]
CMD ["--listen", "0.0.0.0:8080", "--advertise", "inventory:8080", "--discovery", "discovery:5555"]
