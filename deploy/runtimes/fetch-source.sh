#!/bin/sh
# Fetches a build's source into a volume and leaves there what kaniko reads:
#
#   $SOURCE_DIR/context      the folder to build, without .git
#   $SOURCE_DIR/Dockerfile   its own, or the template of the runtime
#
# Runs in an init container as a user without rights, on a read-only root. What to fetch comes in variables, never as
# text of a command; what they hold is hostile:
#
#   SOURCE_URL         https://… (or http://… where the operator listed the host)
#   SOURCE_REF         branch, tag or full ref; "" for the default branch
#   SOURCE_COMMIT      full hash; wins over SOURCE_REF
#   SOURCE_TREE        ref and folder in one, as in a forge's URL
#   SOURCE_PATH        folder inside the repository; "" for its root
#   SOURCE_DOCKERFILE  path inside the folder; "" for "Dockerfile", which may be missing
#   DOCKERFILE_TEMPLATE, DOCKERFILE_ADVICE  what to use, or what to say, when it is missing
#   GIT_USERNAME, GIT_PASSWORD  from a secret, where the host has one
#
# No parenthesis may follow a dollar sign in this file: Kubernetes would take it for a variable of the pod.
set -eu
umask 022

fail() {
    printf 'fetch-source: %s\n' "$1" >&2
    exit 1
}

dir=${SOURCE_DIR:?}
repo=$dir/repository
rm -rf "$repo" "$dir/context" "$dir/Dockerfile" "$dir/Dockerfile.dockerignore" "$dir/refs" "$dir/refs.names"

# Nothing of the image's or the user's configuration counts; only http(s) is spoken, only to the host that was
# allowed (no redirects), nothing of the repository is executed (no hooks, no filters, no submodules), nobody is
# asked for a password.
export HOME="$dir" LC_ALL=C GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=/bin/false GIT_LFS_SKIP_SMUDGE=1
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
case $SOURCE_URL in
    https://*) export GIT_ALLOW_PROTOCOL=https ;;
    http://*) export GIT_ALLOW_PROTOCOL=http ;;
    *) fail "the URL is neither https:// nor http://" ;;
esac
git_safely() {
    git -c http.followRedirects=false -c core.hooksPath=/dev/null -c core.fsmonitor=false \
        -c fetch.recurseSubmodules=false -c submodule.recurse=false -c gc.auto=0 -c core.logAllRefUpdates=false -c advice.detachedHead=false \
        -c http.lowSpeedLimit=1 -c http.lowSpeedTime=60 -c credential.helper= \
        -c credential.helper='!f() { test "$1" = get && test -n "${GIT_PASSWORD:-}" && printf "username=%s\npassword=%s\n" "${GIT_USERNAME:-x-access-token}" "$GIT_PASSWORD"; }; f' \
        "$@"
}

# Forges answer with and without .git, plain servers with one of them.
url=$SOURCE_URL
git_safely ls-remote -- "$url" >"$dir/refs" || {
    url=${SOURCE_URL%.git}
    git_safely ls-remote -- "$url" >"$dir/refs" || fail "$SOURCE_URL cannot be read; the lines above say why"
}
cut -f2 "$dir/refs" >"$dir/refs.names"

# The branch or tag of this name as a full ref in $full; false if there is none.
find_ref() {
    for full in "$1" "refs/heads/$1" "refs/tags/$1"; do
        case $full in refs/*) grep -Fqx -e "$full" "$dir/refs.names" && return 0 ;; esac
    done
    return 1
}

commit=$SOURCE_COMMIT path=$SOURCE_PATH full=HEAD
if [ -n "$SOURCE_TREE" ]; then
    # A server cannot have both the branch x and the branch x/y, so the first match is the only one.
    name='' rest=$SOURCE_TREE found=''
    while [ -n "$rest" ] && [ -z "$found" ]; do
        name=${name:+$name/}${rest%%/*}
        case $rest in */*) rest=${rest#*/} ;; *) rest='' ;; esac
        if find_ref "$name"; then found=yes; fi
    done
    [ -n "$found" ] || fail "no branch or tag of $SOURCE_URL begins \"$SOURCE_TREE\""
    path=$rest
elif [ -n "$SOURCE_REF" ] && [ -z "$commit" ]; then
    find_ref "$SOURCE_REF" || fail "$SOURCE_URL has no branch or tag \"$SOURCE_REF\""
fi

git init --quiet --template= "$repo"
# Servers that speak the dumb protocol have no shallow clones, and some give a commit only with its branch.
if [ -n "$commit" ]; then
    git_safely -C "$repo" fetch --quiet --no-tags --depth=1 -- "$url" "$commit" 2>/dev/null ||
        git_safely -C "$repo" fetch --quiet --no-tags -- "$url" '+refs/*:refs/remotes/origin/*' ||
        fail "$SOURCE_URL cannot be fetched; the lines above say why"
else
    git_safely -C "$repo" fetch --quiet --no-tags --depth=1 -- "$url" "$full" 2>/dev/null ||
        git_safely -C "$repo" fetch --quiet --no-tags -- "$url" "$full" ||
        fail "$full of $SOURCE_URL cannot be fetched; the lines above say why"
    commit=FETCH_HEAD
fi
# From here on nothing is fetched, so nothing needs the secret.
unset GIT_USERNAME GIT_PASSWORD
git_safely -C "$repo" checkout --quiet --force --detach "$commit^{commit}" -- ||
    fail "$SOURCE_URL has no commit $commit"
git -C "$repo" log -1 --format='fetch-source: at commit %H'
rm -rf "$repo/.git" "$dir/refs" "$dir/refs.names"

# A folder that is a link must still lie inside the repository, and so must the Dockerfile: kaniko prints the lines
# of a Dockerfile that it cannot parse.
root=`readlink -f "$repo"`
folder=`readlink -f "$repo/$path"` || folder=''
case $folder/ in "$root"/*) ;; *) fail "\"$path\" leads out of the repository" ;; esac
[ -d "$folder" ] || fail "the repository has no folder \"$path\""
if [ "$folder" = "$root" ]; then
    mv "$root" "$dir/context"
else
    mv "$folder" "$dir/context"
    rm -rf "$root"
fi

root=`readlink -f "$dir/context"`
wanted=$root/${SOURCE_DOCKERFILE:-Dockerfile}
if [ -e "$wanted" ] || [ -L "$wanted" ]; then
    file=`readlink -f "$wanted"` || file=''
    case $file in "$root"/*) ;; *) fail "\"${SOURCE_DOCKERFILE:-Dockerfile}\" leads out of the folder" ;; esac
    [ -f "$file" ] || fail "\"${SOURCE_DOCKERFILE:-Dockerfile}\" is not a file"
    cp "$file" "$dir/Dockerfile"
    if [ -f "$file.dockerignore" ] && [ ! -L "$file.dockerignore" ]; then
        cp "$file.dockerignore" "$dir/Dockerfile.dockerignore"
    fi
elif [ -n "$SOURCE_DOCKERFILE" ]; then
    fail "the source has no file \"$SOURCE_DOCKERFILE\""
elif [ -n "$DOCKERFILE_TEMPLATE" ]; then
    printf '%s\n' "$DOCKERFILE_TEMPLATE" >"$dir/Dockerfile"
    printf 'fetch-source: no Dockerfile in the source, using the template of the runtime\n'
else
    fail "no Dockerfile in the source, and $DOCKERFILE_ADVICE"
fi
