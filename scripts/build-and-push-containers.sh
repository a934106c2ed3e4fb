#!/usr/bin/env bash
# Builds the three images from the Dockerfile and pushes them to a registry. For machines of another
# kind than this one, set DOCKER_DEFAULT_PLATFORM, for example to linux/amd64: Docker reads it.
set -euo pipefail

usage() {
  cat >&2 <<END
usage: $0 REGISTRY_URL [TAG]

  REGISTRY_URL  where the images go, like registry.example.com/team
  TAG           what this version is called; without it the commit, and then nothing may be uncommitted
END
  exit 2
}

fail() {
  printf '%s: %s\n' "$0" "$1" >&2
  exit "${2:-1}"
}

(($# >= 1 && $# <= 2)) || usage
registry=${1%/}
case $registry in
"" | -* | *://* | *[[:space:]]*) usage ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if (($# == 2)); then
  tag=$2
else
  changes=$(git status --porcelain) || fail "this folder is not a git repository: give a TAG"
  [[ -z $changes ]] || fail "there are uncommitted changes, which no commit would name: commit them, or give a TAG" 2
  tag=$(git rev-parse --short=12 HEAD)
fi
[[ $tag =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || fail "'$tag' is not a valid image tag" 2
command -v docker >/dev/null || fail "docker is not installed"

revision=$(git rev-parse HEAD 2>/dev/null) || revision=unknown

# What the registry calls each image by its content. The deploy script takes these digests, so that a tag that
# is pushed again is deployed again.
mkdir -p .images
digests=.images/$tag
rm -f "$digests"
images=()
for name in producer bff frontend; do
  image=$registry/$name:$tag
  printf '\n==> %s\n' "$image"
  docker build --target "$name" --build-arg "VERSION=$tag" --build-arg "REVISION=$revision" --tag "$image" .
  docker push "$image"
  found=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image")
  while IFS= read -r line; do
    if [[ $line == "$registry/$name@sha256:"* ]]; then images+=("$image@${line#*@}"); fi
  done <<<"$found"
done
if ((${#images[@]} == 3)); then
  printf '%s\n' "${images[@]}" >"$digests"
  printf '\nTheir digests are in %s.' "$digests"
fi
printf '\nPushed. Next:\n  scripts/deploy-application.sh %s %s\n' "$registry" "$tag"
