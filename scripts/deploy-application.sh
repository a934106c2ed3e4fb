#!/usr/bin/env bash
# Deploys the images of a registry to the cluster that kubectl points at, and waits until all of it runs.
# Run again, it brings the cluster to the state in the arguments and k8s/; it never replaces a password.
set -euo pipefail

namespace=realtime-microservices
in_namespace=(--namespace "$namespace")
# What stands in k8s/components/tls-* for the host that --host names.
placeholder=carillon.example.com
# The sleep before the stop of a pod is Kubernetes' own since then.
minor_min=30
# What an overlay may have; the kinds of the Gateway API come to it where the cluster serves them.
kinds=deployments.apps,statefulsets.apps,services,serviceaccounts,networkpolicies.networking.k8s.io
kinds+=,ingresses.networking.k8s.io,horizontalpodautoscalers.autoscaling,poddisruptionbudgets.policy

usage() {
  cat >&2 <<END
usage: $0 [OPTIONS] REGISTRY_URL [TAG]

  REGISTRY_URL      where scripts/build-and-push-containers.sh pushed the images
  TAG               which of them; without it the commit, and then nothing may be uncommitted
  --overlay NAME    the front door, a folder of k8s/overlays: $(folders overlays)
                    (traefik, or the variable OVERLAY)
  --component NAME  what is added to it, a folder of k8s/components; may be repeated:
                    $(folders components)
  --host NAME       the host of the certificate, with a tls component
END
  exit 2
}

folders() {
  local names=("k8s/$1"/*/)
  names=("${names[@]#"k8s/$1/"}")
  printf '%s' "${names[*]%/}"
}

fail() {
  printf '%s: %s\n' "$0" "$1" >&2
  exit "${2:-1}"
}

step() {
  printf '==> %s\n' "$1"
}

# --- Arguments ----------------------------------------------------------------------------------

cd "$(dirname "${BASH_SOURCE[0]}")/.."
overlay=${OVERLAY:-traefik}
components=()
host=
words=()
while (($# > 0)); do
  case $1 in
  --overlay | --component | --host)
    (($# >= 2)) || usage
    set -- "$1=$2" "${@:3}"
    continue
    ;;
  --overlay=*) overlay=${1#*=} ;;
  --component=*) components+=("${1#*=}") ;;
  --host=*) host=${1#*=} ;;
  -*) usage ;;
  *) words+=("$1") ;;
  esac
  shift
done
((${#words[@]} >= 1 && ${#words[@]} <= 2)) || usage
registry=${words[0]%/}
case $registry in
"" | *://* | *[[:space:]]*) usage ;;
esac
[[ $overlay =~ ^[a-z0-9-]+$ && -f k8s/overlays/$overlay/kustomization.yaml ]] ||
  fail "there is no overlay '$overlay': take one of $(folders overlays)" 2
for component in ${components[@]+"${components[@]}"}; do
  [[ $component =~ ^[a-z0-9-]+$ && -f k8s/components/$component/kustomization.yaml ]] ||
    fail "there is no component '$component': take one of $(folders components)" 2
done
[[ -z $host || $host =~ ^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$ ]] ||
  fail "'$host' is not the name of a host" 2
if ((${#words[@]} == 2)); then
  tag=${words[1]}
else
  changes=$(git status --porcelain) || fail "this folder is not a git repository: give a TAG"
  [[ -z $changes ]] || fail "there are uncommitted changes, which no commit would name: commit them, or give a TAG" 2
  tag=$(git rev-parse --short=12 HEAD)
fi
[[ $tag =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || fail "'$tag' is not a valid image tag" 2
command -v kubectl >/dev/null || fail "kubectl is not installed"

# --- Render -------------------------------------------------------------------------------------

# All that is generated is in .generated, which git does not see; k8s/ stays as it is.
application=.generated/application.yaml

# The digest of a pushed image, where the build script was run here. A tag can be pushed again with another
# image, and nodes keep the image that they have.
digest() {
  local line image="$registry/$1:$tag@"
  [[ -f .images/$tag ]] || return 0
  while IFS= read -r line; do
    if [[ $line == "$image"* ]]; then printf '%s' "${line#"$image"}"; fi
  done <".images/$tag"
}

render() {
  local name found
  {
    printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n'
    printf 'resources:\n- ../k8s/overlays/%s\n' "$overlay"
    if ((${#components[@]} > 0)); then
      printf 'components:\n'
      printf -- '- ../k8s/components/%s\n' "${components[@]}"
    fi
    printf 'images:\n'
    for name in producer bff frontend; do
      found=$(digest "$name")
      printf -- '- name: carillon/%s\n  newName: %s/%s\n' "$name" "$registry" "$name"
      if [[ -n $found ]]; then printf '  digest: %s\n' "$found"; else printf '  newTag: "%s"\n' "$tag"; fi
    done
    if [[ -f .generated/secrets.yaml ]]; then printf 'patches:\n- path: secrets.yaml\n'; fi
  } >.generated/kustomization.yaml
  kubectl kustomize .generated >.generated/rendered.yaml
  sed "s/${placeholder//./\\.}/${host:-$placeholder}/g" .generated/rendered.yaml >"$application"
}

# The values of a field in what is rendered, each once.
values() {
  sed -n "s/^[ -]*$1: *//p" "$application" | sort -u
}

rm -rf .generated
mkdir .generated
pinned=$(digest bff)
step "Render $overlay with $registry/…:$tag${pinned:+ by the digests in .images/$tag}"
render
if [[ -z $host ]] && grep -q "$placeholder" "$application"; then
  fail "a tls component needs the host of its certificate: --host NAME" 2
elif [[ -n $host ]] && ! grep -q "$host" "$application"; then
  fail "--host is for a tls component: give one of them too" 2
fi

# --- Check the cluster before anything is applied -----------------------------------------------

exists() {
  kubectl "${in_namespace[@]}" get "$1" "$2" --ignore-not-found --output name
}

# Ends the script when an object that is not ours is missing.
need() {
  local found
  found=$(exists "$1" "$2")
  [[ -n $found ]] || fail "the cluster has no $1 $2. Nothing was applied: $3"
}

step "Check the cluster"
minor=$(kubectl get --raw /version | sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p')
((${minor:-0} >= minor_min)) || fail "the cluster is older than Kubernetes 1.$minor_min. Nothing was applied"
served=$(kubectl api-versions)
for version in $(values apiVersion); do
  grep -qxF "$version" <<<"$served" ||
    fail "the cluster does not serve $version, which the overlay $overlay needs. Nothing was applied: see \
'Choose a front door' in docs/kubernetes.md"
done
for class in $(values ingressClassName); do
  need ingressclass "$class" "install the controller, or choose another --overlay"
done
for class in $(values gatewayClassName); do
  need gatewayclass "$class" "make the class of Envoy Gateway, as its own instructions do"
done
make="kubectl apply --filename k8s/base/namespace.yaml
  kubectl --namespace $namespace create secret"
if grep -q 'name: external-redis$' "$application"; then
  need secret external-redis "make it, and run this again:
  $make generic external-redis --from-file=REDIS_URL=FILE"
fi
if [[ -n $host ]]; then
  need secret carillon-tls "make it, and run this again:
  $make tls carillon-tls --cert=FILE --key=FILE"
fi

# --- Namespace and passwords --------------------------------------------------------------------

step "Namespace $namespace"
phase() {
  kubectl get namespace "$namespace" --ignore-not-found --output 'jsonpath={.status.phase}'
}
# Objects in a namespace that is being deleted are deleted with it.
state=$(phase)
if [[ $state == Terminating ]]; then
  printf 'it is being deleted: waiting until it is gone\n'
  kubectl wait --for=delete "namespace/$namespace" --timeout=5m || true
  state=$(phase)
  [[ $state != Terminating ]] || fail "the namespace $namespace is still being deleted. Nothing was applied"
fi
# One that `kubectl create namespace` made would bring a warning when it is applied.
if [[ -n $state ]]; then
  kubectl apply set-last-applied --create-annotation --filename k8s/base/namespace.yaml >/dev/null
fi
kubectl apply --filename k8s/base/namespace.yaml

# Makes a Secret with a password of 256 random bits where it is missing.
password() {
  local found password
  found=$(exists secret "$1")
  if [[ -n $found ]]; then
    printf '%s is kept as it is\n' "$1"
    return
  fi
  password=$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
  [[ ${#password} == 64 ]] || fail "this machine gives no random bytes"
  # By standard input: an argument would be in the list of processes.
  kubectl create --filename - <<END
apiVersion: v1
kind: Secret
metadata:
  name: $1
  namespace: $namespace
  labels:
    app.kubernetes.io/part-of: carillon
stringData:
  password: $password
END
}

secrets=(external-redis)
if grep -q '^kind: StatefulSet$' "$application"; then
  step "Passwords of Redis"
  secrets=(redis redis-producer redis-bff)
  for name in "${secrets[@]}"; do
    password "$name"
  done
fi

# A pod reads its Secrets when it starts. Their versions in the description of the pods make a changed Secret
# restart them: otherwise Redis would keep the password of a Secret that was lost.
versions() {
  local name
  for name in "$@"; do
    kubectl "${in_namespace[@]}" get secret "$name" --ignore-not-found \
      --output 'jsonpath={.metadata.name}={.metadata.uid}/{.metadata.resourceVersion} '
  done
}

describe() {
  cat <<END
---
apiVersion: apps/v1
kind: $1
metadata:
  name: $2
  namespace: $namespace
spec:
  template:
    metadata:
      annotations:
        carillon/secrets: "$3"
END
}

if [[ ${secrets[0]} == redis ]]; then
  found=$(versions "${secrets[@]}")
  describe StatefulSet redis "$found" >>.generated/secrets.yaml
  producer=(redis-producer)
  bff=(redis-bff bff)
else
  producer=(external-redis)
  bff=(external-redis bff)
fi
found=$(versions "${producer[@]}")
describe Deployment producer "$found" >>.generated/secrets.yaml
found=$(versions "${bff[@]}")
describe Deployment bff "$found" >>.generated/secrets.yaml
render

# --- Apply --------------------------------------------------------------------------------------

step "Apply"
# All of it as a dry run first: half a deployment would be harder to repair than none.
if ! kubectl apply --dry-run=server --filename "$application" >/dev/null; then
  fail "the cluster refuses it, and nothing was applied. Kubernetes changes neither the volume nor the policy of a
StatefulSet; where it is that of Redis, delete it without its pod, and run this again:
  kubectl --namespace $namespace delete statefulset redis --cascade=orphan"
fi
generations() {
  kubectl "${in_namespace[@]}" get deployments,statefulsets --selector app.kubernetes.io/part-of=carillon \
    --output 'jsonpath={range .items[*]}{.kind}/{.metadata.name}={.metadata.generation} {end}'
}
before=$(generations)
kubectl apply --filename "$application"
after=$(generations)

# --- Wait ---------------------------------------------------------------------------------------

# Prints the state of a deployment that is not ready in time.
report() {
  printf '\n==> Pods\n'
  kubectl "${in_namespace[@]}" get pods --output wide || true
  printf '\n==> Latest events\n'
  kubectl "${in_namespace[@]}" get events --sort-by=.lastTimestamp | tail -n 20 || true
}

step "Wait for the rollout"
wanted=$(kubectl get --filename "$application" --output name)
# Redis first: without it nothing else becomes ready.
for workload in $(grep '^statefulset\.apps/' <<<"$wanted" || true) $(grep '^deployment\.apps/' <<<"$wanted"); do
  kubectl "${in_namespace[@]}" rollout status "$workload" --timeout=5m || {
    code=$?
    report >&2
    fail "$workload is not ready" "$code"
  }
done

# The conditions of an object that its controller writes for each of its parents.
conditions() {
  kubectl "${in_namespace[@]}" get "$1" \
    --output 'jsonpath={range .status.parents[*].conditions[*]}{.type}={.status} {end}{range .status.ancestors[*].conditions[*]}{.type}={.status} {end}'
}

accepted() {
  local tries found
  for ((tries = 0; tries < 30; tries++)); do
    found=$(conditions "$1")
    if [[ $found == *Accepted=True* && $found != *Accepted=False* && $found != *ResolvedRefs=False* ]]; then
      return
    fi
    sleep 2
  done
  kubectl "${in_namespace[@]}" get "$1" --output 'jsonpath={.status}{"\n"}' >&2 || true
  fail "$1 is not accepted: ${found:-no controller has written a status}"
}

if grep -q '^gateway\.' <<<"$wanted"; then
  step "Wait for the front door"
  kubectl "${in_namespace[@]}" wait --for=condition=Programmed gateway/carillon --timeout=2m || {
    kubectl "${in_namespace[@]}" get gateway/carillon --output 'jsonpath={.status}{"\n"}' >&2 || true
    fail "the Gateway is not programmed, so no client reaches Carillon through it"
  }
  while IFS= read -r object; do
    case $object in
    httproute.* | backendtrafficpolicy.*) accepted "$object" ;;
    esac
  done <<<"$wanted"
fi

# --- Remove what another overlay left -----------------------------------------------------------

if grep -q '^gateway\.networking\.k8s\.io/v1$' <<<"$served"; then
  kinds+=,gateways.gateway.networking.k8s.io,httproutes.gateway.networking.k8s.io
fi
if grep -q '^gateway\.envoyproxy\.io/v1alpha1$' <<<"$served"; then
  kinds+=,backendtrafficpolicies.gateway.envoyproxy.io,envoyproxies.gateway.envoyproxy.io
fi
found=$(kubectl "${in_namespace[@]}" get "$kinds" --selector app.kubernetes.io/part-of=carillon --output name)
left=$(grep -vxF "$wanted" <<<"$found" || true)
if [[ -n $left ]]; then
  step "Remove what this overlay does not have"
  # shellcheck disable=SC2086  # names have no blanks
  kubectl "${in_namespace[@]}" delete $left
fi

printf '\nCarillon runs. Reach it\n'
if [[ $wanted == *gateway.gateway* ]]; then
  cat <<END
  through its Gateway, at the address of
    kubectl --namespace $namespace get gateway carillon
END
else
  cat <<END
  through the ingress controller, at the address of
    kubectl --namespace $namespace get ingress
END
fi
cat <<END
  or without it, at http://localhost:8080, by
    kubectl --namespace $namespace port-forward service/frontend 8080:8080
Remove it, its passwords and all its data by
    kubectl delete namespace $namespace
END
if [[ $before == "$after" && -z $pinned ]]; then
  cat <<END

No pod was restarted: all run $tag already. If $tag was pushed again, nodes keep the earlier image. Push it under
another tag, or run this where scripts/build-and-push-containers.sh was run, which keeps digests.
END
fi
