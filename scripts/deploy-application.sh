#!/usr/bin/env bash
# Deploys the images of a registry to the cluster that kubectl points at, and waits until all of it runs.
# Run again, it brings the cluster to what the arguments and k8s/ say now; it never replaces a password.
set -euo pipefail

namespace=realtime-microservices

usage() {
  cat >&2 <<END
usage: $0 [--overlay NAME] REGISTRY_URL [TAG]

  REGISTRY_URL    where scripts/build-and-push-containers.sh pushed the images
  TAG             which of them; without it the commit, and then nothing may be uncommitted
  --overlay NAME  the front door, a folder of k8s/overlays: $(overlays)
                  (ingress-nginx, or the variable OVERLAY)
END
  exit 2
}

overlays() {
  local names=(k8s/overlays/*/)
  names=("${names[@]#k8s/overlays/}")
  printf '%s' "${names[*]%/}"
}

fail() {
  printf '%s: %s\n' "$0" "$1" >&2
  exit "${2:-1}"
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
overlay=${OVERLAY:-ingress-nginx}
words=()
while (($# > 0)); do
  case $1 in
  --overlay)
    (($# >= 2)) || usage
    overlay=$2
    shift
    ;;
  --overlay=*) overlay=${1#*=} ;;
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
  fail "there is no overlay '$overlay': take one of $(overlays)" 2
if ((${#words[@]} == 2)); then
  tag=${words[1]}
else
  changes=$(git status --porcelain) || fail "this is no git repository: give a TAG"
  [[ -z $changes ]] || fail "there are uncommitted changes, which no commit would name: commit them, or give a TAG" 2
  tag=$(git rev-parse --short=12 HEAD)
fi
[[ $tag =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || fail "'$tag' is no tag of an image" 2
command -v kubectl >/dev/null || fail "kubectl is not installed"

# All that is generated is in .generated, which git does not see; k8s/ stays as it is.
application=.generated/application.yaml
rm -rf .generated
mkdir .generated
cat >.generated/kustomization.yaml <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- ../k8s/overlays/$overlay
images:
$(for name in producer bff frontend; do
  printf -- '- name: carillon/%s\n  newName: %s/%s\n  newTag: "%s"\n' "$name" "$registry" "$name" "$tag"
done)
END
printf '==> Render %s with %s/…:%s\n' "$overlay" "$registry" "$tag"
kubectl kustomize .generated >$application

printf '==> Namespace %s\n' "$namespace"
kubectl apply --filename k8s/base/namespace.yaml

secret() {
  kubectl --namespace "$namespace" get secret "$1" --ignore-not-found --output name
}

printf '==> Password of Redis\n'
case $overlay in
external-redis*)
  found=$(secret external-redis)
  [[ -n $found ]] || fail "the Secret external-redis is missing; make it, and run this again:
  kubectl --namespace $namespace create secret generic external-redis --from-file=REDIS_URL=FILE"
  ;;
*)
  found=$(secret redis)
  if [[ -n $found ]]; then
    printf 'kept as it is\n'
  else
    password=$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
    [[ ${#password} == 64 ]] || fail "this machine gives no random bytes"
    # By standard input: an argument would be in the list of processes.
    kubectl create --filename - <<END
apiVersion: v1
kind: Secret
metadata:
  name: redis
  namespace: $namespace
  labels:
    app.kubernetes.io/part-of: carillon
stringData:
  password: $password
END
    unset password
  fi
  ;;
esac

printf '==> Apply\n'
kubectl apply --filename $application

printf '==> Wait for the rollout\n'
workloads=$(kubectl get --filename $application --output name)
while IFS= read -r workload; do
  case $workload in
  deployment.apps/* | statefulset.apps/*)
    kubectl --namespace "$namespace" rollout status "$workload" --timeout=5m
    ;;
  esac
done <<<"$workloads"

cat <<END

Carillon runs. Reach it
END
case $overlay in
gateway-api)
  cat <<END
  through its Gateway, at the address of
    kubectl --namespace $namespace get gateway carillon
END
  ;;
*)
  cat <<END
  through the ingress controller, at the address of
    kubectl --namespace $namespace get ingress
END
  ;;
esac
cat <<END
  or without it, at http://localhost:8080, by
    kubectl --namespace $namespace port-forward service/frontend 8080:8080
Remove it, its password and all its data by
    kubectl delete namespace $namespace
END
