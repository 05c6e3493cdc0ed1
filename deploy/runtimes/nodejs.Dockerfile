# For Node.js sources that bring no Dockerfile: package.json with a start script (or server.js), with any of npm's,
# Yarn's (1 and later) and pnpm's lock files or none. The images' own Debian is taken: not every version exists on the
# same one (node:19 never came to bookworm).
# runtime: nodejs node
# versions: 18 19 20 21 22 23 24
# default: 22
FROM @REGISTRY@/node:@VERSION@ AS build
@ARGUMENTS@
WORKDIR /app
COPY . .
# The build may need development dependencies whatever NODE_ENV says; the image does not. What is not the npm of the
# base image is downloaded: pnpm, and a Yarn later than 1, which is asked for node_modules, because npm starts the image.
RUN test -f package.json || { echo "a Node.js source needs a package.json"; exit 1; }; \
    has_build() { node -e 'process.exit(require("./package.json").scripts?.build ? 0 : 1)'; }; \
    if [ -f pnpm-lock.yaml ]; then \
        npm install --global --force pnpm@9 && pnpm install --frozen-lockfile --prod=false \
        && pnpm run --if-present build && CI=true pnpm prune --prod; \
    elif [ -f yarn.lock ] && grep -q '^__metadata:' yarn.lock; then \
        export YARN_NODE_LINKER=node-modules YARN_ENABLE_TELEMETRY=0; \
        yarn=4; if grep -Eq '^  version: [3-6]$' yarn.lock; then yarn=3; fi; \
        npm install --global --force "@yarnpkg/cli-dist@$yarn" \
        && yarn install --immutable && if has_build; then yarn run build; fi \
        && { yarn workspaces focus --production || echo "this Yarn cannot leave development dependencies out"; }; \
    elif [ -f yarn.lock ]; then \
        yarn install --frozen-lockfile --production=false && if has_build; then yarn run build; fi \
        && yarn install --frozen-lockfile --production=true --ignore-scripts --prefer-offline; \
    elif [ -f package-lock.json ] || [ -f npm-shrinkwrap.json ]; then \
        npm ci --include=dev && npm run build --if-present && npm prune --omit=dev --no-package-lock; \
    else \
        npm install --include=dev --no-package-lock && npm run build --if-present \
        && npm prune --omit=dev --no-package-lock; \
    fi

FROM @REGISTRY@/node:@VERSION@-slim
@ENVIRONMENT@
WORKDIR /app
# The images' own user "node", as a number: where pods must not be root, Kubernetes cannot tell it from a name.
COPY --from=build --chown=1000:1000 /app /app
USER 1000:1000
CMD ["npm", "start"]
