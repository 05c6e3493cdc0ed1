# For Go sources that bring no Dockerfile: a go.mod and exactly one main package, at the root or anywhere below it.
# Dependencies come from vendor, or as go.sum says; without either, as go.mod says.
# runtime: go golang
# versions: 1 1.20 1.21 1.22 1.23 1.24 1.25 1.26 1.27
# default: 1
FROM @REGISTRY@/golang:@VERSION@-bookworm AS build
@ARGUMENTS@
ENV CGO_ENABLED=0
WORKDIR /app
COPY . .
# A main package at the root wins over others; of several below it none can be chosen. Where go lists nothing at all, say
# for a go.mod that asks for a later Go, its own words are the last.
RUN test -f go.mod || { echo "a Go source needs a go.mod"; exit 1; }; \
    if [ ! -f go.sum ] && [ ! -d vendor ]; then export GOFLAGS="$GOFLAGS -mod=mod"; fi; \
    go list -f '{{if eq .Name "main"}}{{.Dir}}{{end}}' ./... > /tmp/packages || [ -s /tmp/packages ] || exit 1; \
    grep . /tmp/packages > /tmp/mains; \
    if grep -qx /app /tmp/mains; then echo /app > /tmp/mains; fi; \
    if [ "`wc -l < /tmp/mains`" -ne 1 ]; then \
        echo "a Go source without a Dockerfile needs exactly one main package; found:"; cat /tmp/mains; exit 1; \
    fi; \
    go build -trimpath -o /out/app "`cat /tmp/mains`"

FROM scratch
@ENVIRONMENT@
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/app /app
USER 65532:65532
CMD ["/app"]
