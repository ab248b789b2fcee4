# An image of the command and the libraries that it needs, and of nothing else:
#
#     docker build -t pgwake .
#     docker run --rm pgwake -d 'host=db.example.com dbname=app user=me' listen jobs
#
# No test builds it; tests/empty_debian.sh runs its last step in a Debian, and the command in what comes of it.
FROM debian:trixie AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
    ca-certificates gcc libc6-dev libssl-dev pkg-config rustup
RUN rustup set profile minimal && rustup default stable
WORKDIR /pgwake
COPY . .
RUN cargo build --release --locked
# What `ldd` names, under the names by which the loader finds it. Certificates are for sslrootcert=system.
RUN install -D -s target/release/pgwake /bare/usr/bin/pgwake \
 && cp --parents --dereference $(ldd target/release/pgwake | grep -o '/[^ ]*') /bare \
 && cp --parents /etc/ssl/certs/ca-certificates.crt /bare \
 && echo 'hosts: files dns' >/bare/etc/nsswitch.conf \
 && echo 'nobody:x:65534:65534::/:' >/bare/etc/passwd

FROM scratch
COPY --from=build /bare /
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER nobody
ENTRYPOINT ["/usr/bin/pgwake"]
