# For Node.js sources that bring no Dockerfile: package.json with a start script (or server.js), with any of npm's,
# Yarn's and pnpm's lock files or none.
# runtime: nodejs node
# versions: 18 19 20 21 22 23 24
# default: 22
FROM @REGISTRY@/node:@VERSION@-bookworm AS build
@ARGUMENTS@
WORKDIR /app
COPY . .
# The build may need development dependencies whatever NODE_ENV says; the image does not.
RUN test -f package.json || { echo "a Node.js source needs a package.json"; exit 1; }; \
    if [ -f pnpm-lock.yaml ]; then \
        npm install --global pnpm@9 && pnpm install --frozen-lockfile --prod=false \
        && pnpm run --if-present build && CI=true pnpm prune --prod; \
    elif [ -f yarn.lock ]; then \
        yarn install --frozen-lockfile --production=false \
        && if node -e 'process.exit(require("./package.json").scripts?.build ? 0 : 1)'; then yarn run build; fi \
        && yarn install --frozen-lockfile --production=true --ignore-scripts --prefer-offline; \
    else \
        if [ -f package-lock.json ] || [ -f npm-shrinkwrap.json ]; then \
            npm ci --include=dev; \
        else \
            npm install --include=dev --no-package-lock; \
        fi && npm run build --if-present && npm prune --omit=dev --no-package-lock; \
    fi

FROM @REGISTRY@/node:@VERSION@-bookworm-slim
@ENVIRONMENT@
WORKDIR /app
COPY --from=build --chown=node:node /app /app
USER node
CMD ["npm", "start"]
