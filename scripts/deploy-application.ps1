<#
.SYNOPSIS
Deploys the images of a registry to the cluster that kubectl points at, and waits until all of it runs.
.DESCRIPTION
Run again, it brings the cluster to what the arguments and k8s/ say now; it never replaces a password.
The twin of deploy-application.sh.
.PARAMETER DockerRegistryUrl
Where build-and-push-containers.ps1 pushed the images
.PARAMETER Tag
Which of them; without it the commit, and then nothing may be uncommitted
.PARAMETER Overlay
The front door, a folder of k8s/overlays
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][ValidatePattern('^[^\s:/-][^\s]*$')][string]$DockerRegistryUrl,
    [ValidatePattern('^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$')][string]$Tag,
    [ValidatePattern('^[a-z0-9-]+$')][string]$Overlay = 'ingress-nginx'
)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'
$namespace = 'realtime-microservices'

# PowerShell goes on after a program that failed, whatever ErrorActionPreference says. This does not.
# What comes by the pipe goes to the program's standard input, and is not part of the message.
function Invoke-Program([string]$Program, [string[]]$Arguments) {
    if ($MyInvocation.ExpectingInput) { $input | & $Program @Arguments } else { & $Program @Arguments }
    if ($LASTEXITCODE -ne 0) { throw "$Program $($Arguments -join ' ') failed with exit code $LASTEXITCODE" }
}

function Get-SecretName([string]$Name) {
    Invoke-Program 'kubectl' @('--namespace', $namespace, 'get', 'secret', $Name, '--ignore-not-found', '--output', 'name')
}

if ($DockerRegistryUrl -like '*://*') { throw 'a registry is named without https://' }
$registry = $DockerRegistryUrl.TrimEnd('/')
Push-Location (Join-Path $PSScriptRoot '..')
try {
    if (-not (Test-Path "k8s/overlays/$Overlay/kustomization.yaml")) {
        $names = (Get-ChildItem 'k8s/overlays' -Directory | ForEach-Object { $_.Name }) -join ' '
        throw "there is no overlay '$Overlay': take one of $names"
    }
    if (-not $Tag) {
        if (Invoke-Program 'git' @('status', '--porcelain')) {
            throw 'there are uncommitted changes, which no commit would name: commit them, or give a -Tag'
        }
        $Tag = Invoke-Program 'git' @('rev-parse', '--short=12', 'HEAD')
    }

    # All that is generated is in .generated, which git does not see; k8s/ stays as it is.
    if (Test-Path '.generated') { Remove-Item '.generated' -Recurse -Force }
    New-Item '.generated' -ItemType Directory | Out-Null
    $lines = @(
        'apiVersion: kustomize.config.k8s.io/v1beta1'
        'kind: Kustomization'
        'resources:'
        "- ../k8s/overlays/$Overlay"
        'images:'
    )
    foreach ($name in 'producer', 'bff', 'frontend') {
        $lines += "- name: carillon/$name", "  newName: $registry/$name", "  newTag: `"$Tag`""
    }
    Set-Content '.generated/kustomization.yaml' $lines -Encoding ascii
    Write-Output "==> Render $Overlay with $registry/...:$Tag"
    Invoke-Program 'kubectl' @('kustomize', '.generated', '--output', '.generated/application.yaml')

    Write-Output "==> Namespace $namespace"
    Invoke-Program 'kubectl' @('apply', '--filename', 'k8s/base/namespace.yaml')

    Write-Output '==> Password of Redis'
    if ($Overlay -like 'external-redis*') {
        if (-not (Get-SecretName 'external-redis')) {
            throw "the Secret external-redis is missing; make it, and run this again: kubectl --namespace $namespace create secret generic external-redis --from-file=REDIS_URL=FILE"
        }
    }
    elseif (Get-SecretName 'redis') {
        Write-Output 'kept as it is'
    }
    else {
        $bytes = New-Object byte[] 32
        $random = [System.Security.Cryptography.RandomNumberGenerator]::Create()
        $random.GetBytes($bytes)
        $password = -join ($bytes | ForEach-Object { $_.ToString('x2') })
        $secret = @(
            'apiVersion: v1'
            'kind: Secret'
            'metadata:'
            '  name: redis'
            "  namespace: $namespace"
            '  labels:'
            '    app.kubernetes.io/part-of: carillon'
            'stringData:'
            "  password: $password"
        ) -join "`n"
        # By standard input: an argument would be in the list of processes.
        $secret | Invoke-Program 'kubectl' @('create', '--filename', '-')
        Remove-Variable password, secret, bytes
    }

    Write-Output '==> Apply'
    Invoke-Program 'kubectl' @('apply', '--filename', '.generated/application.yaml')

    Write-Output '==> Wait for the rollout'
    $objects = Invoke-Program 'kubectl' @('get', '--filename', '.generated/application.yaml', '--output', 'name')
    foreach ($object in $objects -match '^(deployment|statefulset)\.apps/') {
        Invoke-Program 'kubectl' @('--namespace', $namespace, 'rollout', 'status', $object, '--timeout=5m')
    }

    Write-Output ''
    Write-Output 'Carillon runs. Reach it'
    if ($Overlay -eq 'gateway-api') {
        Write-Output "  through its Gateway, at the address of`n    kubectl --namespace $namespace get gateway carillon"
    }
    else {
        Write-Output "  through the ingress controller, at the address of`n    kubectl --namespace $namespace get ingress"
    }
    Write-Output "  or without it, at http://localhost:8080, by`n    kubectl --namespace $namespace port-forward service/frontend 8080:8080"
    Write-Output "Remove it, its password and all its data by`n    kubectl delete namespace $namespace"
}
finally {
    Pop-Location
}
