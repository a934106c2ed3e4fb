<#
.SYNOPSIS
Deploys the images of a registry to the cluster that kubectl points at, and waits until all of it runs.
.DESCRIPTION
Run again, it brings the cluster to the state in the arguments and k8s/; it never replaces a password.
The twin of deploy-application.sh, where the reasons stand.
.PARAMETER DockerRegistryUrl
Where build-and-push-containers.ps1 pushed the images
.PARAMETER Tag
Which of them; without it the commit, and then nothing may be uncommitted
.PARAMETER Overlay
The front door, a folder of k8s/overlays
.PARAMETER Component
What is added to it, folders of k8s/components
.PARAMETER HostName
The host of the certificate, with a tls component
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][ValidatePattern('^[^\s:/-][^\s]*$')][string]$DockerRegistryUrl,
    [ValidatePattern('^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$')][string]$Tag,
    [ValidatePattern('^[a-z0-9-]+$')][string]$Overlay = 'traefik',
    [ValidatePattern('^[a-z0-9-]+$')][string[]]$Component = @(),
    [ValidatePattern('^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$')][string]$HostName
)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'
$namespace = 'realtime-microservices'
$placeholder = 'carillon.example.com'
$minorMin = 30
$application = '.generated/application.yaml'

# PowerShell continues after a program that failed, whatever ErrorActionPreference is. This does not.
# What comes by the pipe goes to the program's standard input, and is not part of the message.
function Invoke-Program([string]$Program, [string[]]$Arguments) {
    if ($MyInvocation.ExpectingInput) { $input | & $Program @Arguments } else { & $Program @Arguments }
    if ($LASTEXITCODE -ne 0) { throw "$Program $($Arguments -join ' ') failed with exit code $LASTEXITCODE" }
}

# The same in the namespace.
function Invoke-Here([string[]]$Arguments) {
    Invoke-Program 'kubectl' (@('--namespace', $namespace) + $Arguments)
}

function Get-FolderNames([string]$Folder) {
    (Get-ChildItem "k8s/$Folder" -Directory | ForEach-Object { $_.Name }) -join ' '
}

# The digest of a pushed image, where the build script was run here.
function Get-Digest([string]$Name) {
    if (Test-Path ".images/$Tag") {
        $image = "$registry/${Name}:$Tag@"
        foreach ($line in Get-Content ".images/$Tag") {
            if ($line.StartsWith($image)) { return $line.Substring($image.Length) }
        }
    }
}

function Write-Application {
    $lines = @('apiVersion: kustomize.config.k8s.io/v1beta1', 'kind: Kustomization', 'resources:', "- ../k8s/overlays/$Overlay")
    if ($Component) {
        $lines += 'components:'
        foreach ($name in $Component) { $lines += "- ../k8s/components/$name" }
    }
    $lines += 'images:'
    foreach ($name in 'producer', 'bff', 'frontend') {
        $digest = Get-Digest $name
        $lines += "- name: carillon/$name", "  newName: $registry/$name"
        if ($digest) { $lines += "  digest: $digest" } else { $lines += "  newTag: `"$Tag`"" }
    }
    if (Test-Path '.generated/secrets.yaml') { $lines += 'patches:', '- path: secrets.yaml' }
    Set-Content '.generated/kustomization.yaml' $lines -Encoding ascii
    Invoke-Program 'kubectl' @('kustomize', '.generated', '--output', '.generated/rendered.yaml')
    $text = [System.IO.File]::ReadAllText((Join-Path $PWD '.generated/rendered.yaml'))
    if ($HostName) { $text = $text.Replace($placeholder, $HostName) }
    [System.IO.File]::WriteAllText((Join-Path $PWD $application), $text)
}

# The values of a field in what is rendered, each once.
function Get-Values([string]$Field) {
    $found = [regex]::Matches([System.IO.File]::ReadAllText((Join-Path $PWD $application)), "(?m)^[ -]*${Field}: *(\S+)")
    $found | ForEach-Object { $_.Groups[1].Value } | Sort-Object -Unique
}

function Test-Rendered([string]$Pattern) {
    [regex]::IsMatch([System.IO.File]::ReadAllText((Join-Path $PWD $application)), $Pattern)
}

function Get-ObjectName([string]$Kind, [string]$Name) {
    Invoke-Here @('get', $Kind, $Name, '--ignore-not-found', '--output', 'name')
}

function Assert-Object([string]$Kind, [string]$Name, [string]$Remedy) {
    if (-not (Get-ObjectName $Kind $Name)) { throw "the cluster has no $Kind $Name. Nothing was applied: $Remedy" }
}

function Get-Phase {
    Invoke-Program 'kubectl' @('get', 'namespace', $namespace, '--ignore-not-found', '--output', 'jsonpath={.status.phase}')
}

# Makes a Secret with a password of 256 random bits where it is missing.
function Add-Password([string]$Name) {
    if (Get-ObjectName 'secret' $Name) {
        Write-Output "$Name is kept as it is"
        return
    }
    $bytes = New-Object byte[] 32
    $random = [System.Security.Cryptography.RandomNumberGenerator]::Create()
    $random.GetBytes($bytes)
    $password = -join ($bytes | ForEach-Object { $_.ToString('x2') })
    $secret = @(
        'apiVersion: v1'
        'kind: Secret'
        'metadata:'
        "  name: $Name"
        "  namespace: $namespace"
        '  labels:'
        '    app.kubernetes.io/part-of: carillon'
        'stringData:'
        "  password: $password"
    ) -join "`n"
    # By standard input: an argument would be in the list of processes.
    $secret | Invoke-Program 'kubectl' @('create', '--filename', '-')
}

# A pod reads its Secrets when it starts. Their versions in the description of the pods make a changed Secret
# restart them.
function Add-Description([string]$Kind, [string]$Name, [string[]]$Secrets) {
    $versions = foreach ($secret in $Secrets) {
        Invoke-Here @('get', 'secret', $secret, '--ignore-not-found', '--output', 'jsonpath={.metadata.name}={.metadata.uid}/{.metadata.resourceVersion} ')
    }
    $lines = @(
        '---'
        'apiVersion: apps/v1'
        "kind: $Kind"
        'metadata:'
        "  name: $Name"
        "  namespace: $namespace"
        'spec:'
        '  template:'
        '    metadata:'
        '      annotations:'
        "        carillon/secrets: `"$(-join $versions)`""
    )
    Add-Content '.generated/secrets.yaml' $lines -Encoding ascii
}

function Get-Generations {
    Invoke-Here @('get', 'deployments,statefulsets', '--selector', 'app.kubernetes.io/part-of=carillon', '--output', 'jsonpath={range .items[*]}{.kind}/{.metadata.name}={.metadata.generation} {end}')
}

# Prints the state of a deployment that is not ready in time.
function Write-State {
    Write-Output '==> Pods'
    Invoke-Here @('get', 'pods', '--output', 'wide')
    Write-Output '==> Latest events'
    Invoke-Here @('get', 'events', '--sort-by=.lastTimestamp') | Select-Object -Last 20
}

# Waits until a controller has accepted an object.
function Wait-Accepted([string]$Object) {
    $found = ''
    foreach ($try in 1..30) {
        $found = Invoke-Here @('get', $Object, '--output', 'jsonpath={range .status.parents[*].conditions[*]}{.type}={.status} {end}{range .status.ancestors[*].conditions[*]}{.type}={.status} {end}')
        if ($found -like '*Accepted=True*' -and $found -notlike '*Accepted=False*' -and $found -notlike '*ResolvedRefs=False*') { return }
        Start-Sleep -Seconds 2
    }
    throw "$Object is not accepted: $found"
}

if ($DockerRegistryUrl -like '*://*') { throw 'a registry is named without https://' }
$registry = $DockerRegistryUrl.TrimEnd('/')
Push-Location (Join-Path $PSScriptRoot '..')
try {
    if (-not (Test-Path "k8s/overlays/$Overlay/kustomization.yaml")) {
        throw "there is no overlay '$Overlay': take one of $(Get-FolderNames 'overlays')"
    }
    foreach ($name in $Component) {
        if (-not (Test-Path "k8s/components/$name/kustomization.yaml")) {
            throw "there is no component '$name': take one of $(Get-FolderNames 'components')"
        }
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
    $pinned = Get-Digest 'bff'
    Write-Output "==> Render $Overlay with $registry/...:$Tag"
    Write-Application
    if (-not $HostName -and (Test-Rendered ([regex]::Escape($placeholder)))) {
        throw 'a tls component needs the host of its certificate: -HostName NAME'
    }
    if ($HostName -and -not (Test-Rendered ([regex]::Escape($HostName)))) {
        throw '-HostName is for a tls component: give one of them too'
    }

    Write-Output '==> Check the cluster'
    $version = (Invoke-Program 'kubectl' @('get', '--raw', '/version')) -join "`n"
    if ($version -notmatch '"minor": *"(\d+)' -or [int]$Matches[1] -lt $minorMin) {
        throw "the cluster is older than Kubernetes 1.$minorMin. Nothing was applied"
    }
    $served = Invoke-Program 'kubectl' @('api-versions')
    foreach ($name in Get-Values 'apiVersion') {
        if ($served -notcontains $name) {
            throw "the cluster does not serve $name, which the overlay $Overlay needs. Nothing was applied: see 'Choose a front door' in docs/kubernetes.md"
        }
    }
    foreach ($class in Get-Values 'ingressClassName') {
        Assert-Object 'ingressclass' $class 'install the controller, or choose another -Overlay'
    }
    foreach ($class in Get-Values 'gatewayClassName') {
        Assert-Object 'gatewayclass' $class 'make the class of Envoy Gateway, as its own instructions do'
    }
    $make = "make it, and run this again:`n  kubectl apply --filename k8s/base/namespace.yaml`n  kubectl --namespace $namespace create secret"
    if (Test-Rendered '(?m)name: external-redis\r?$') {
        Assert-Object 'secret' 'external-redis' "$make generic external-redis --from-file=REDIS_URL=FILE"
    }
    if ($HostName) {
        Assert-Object 'secret' 'carillon-tls' "$make tls carillon-tls --cert=FILE --key=FILE"
    }

    Write-Output "==> Namespace $namespace"
    $state = Get-Phase
    if ($state -eq 'Terminating') {
        Write-Output 'it is being deleted: waiting until it is gone'
        try { Invoke-Program 'kubectl' @('wait', '--for=delete', "namespace/$namespace", '--timeout=5m') } catch { Write-Output $_ }
        $state = Get-Phase
        if ($state -eq 'Terminating') { throw "the namespace $namespace is still being deleted. Nothing was applied" }
    }
    if ($state) {
        Invoke-Program 'kubectl' @('apply', 'set-last-applied', '--create-annotation', '--filename', 'k8s/base/namespace.yaml') | Out-Null
    }
    Invoke-Program 'kubectl' @('apply', '--filename', 'k8s/base/namespace.yaml')

    if (Test-Rendered '(?m)^kind: StatefulSet\r?$') {
        Write-Output '==> Passwords of Redis'
        foreach ($name in 'redis', 'redis-producer', 'redis-bff') { Add-Password $name }
        Add-Description 'StatefulSet' 'redis' @('redis', 'redis-producer', 'redis-bff')
        Add-Description 'Deployment' 'producer' @('redis-producer')
        Add-Description 'Deployment' 'bff' @('redis-bff', 'bff')
    }
    else {
        Add-Description 'Deployment' 'producer' @('external-redis')
        Add-Description 'Deployment' 'bff' @('external-redis', 'bff')
    }
    Write-Application

    Write-Output '==> Apply'
    try {
        Invoke-Program 'kubectl' @('apply', '--dry-run=server', '--filename', $application) | Out-Null
    }
    catch {
        throw "the cluster refuses it, and nothing was applied. Kubernetes changes neither the volume nor the policy of a StatefulSet; where it is that of Redis, delete it without its pod, and run this again:`n  kubectl --namespace $namespace delete statefulset redis --cascade=orphan"
    }
    $before = Get-Generations
    Invoke-Program 'kubectl' @('apply', '--filename', $application)
    $after = Get-Generations

    Write-Output '==> Wait for the rollout'
    $wanted = @(Invoke-Program 'kubectl' @('get', '--filename', $application, '--output', 'name'))
    # Redis first: without it nothing else becomes ready.
    foreach ($workload in @($wanted -match '^statefulset\.apps/') + @($wanted -match '^deployment\.apps/')) {
        try {
            Invoke-Here @('rollout', 'status', $workload, '--timeout=5m')
        }
        catch {
            Write-State
            throw "$workload is not ready"
        }
    }

    if ($wanted -match '^gateway\.') {
        Write-Output '==> Wait for the front door'
        try {
            Invoke-Here @('wait', '--for=condition=Programmed', 'gateway/carillon', '--timeout=2m')
        }
        catch {
            Invoke-Here @('get', 'gateway/carillon', '--output', 'jsonpath={.status}')
            throw 'the Gateway is not programmed, so no client reaches Carillon through it'
        }
        foreach ($object in $wanted -match '^(httproute|backendtrafficpolicy)\.') { Wait-Accepted $object }
    }

    $kinds = 'deployments.apps,statefulsets.apps,services,serviceaccounts,networkpolicies.networking.k8s.io,ingresses.networking.k8s.io,horizontalpodautoscalers.autoscaling,poddisruptionbudgets.policy'
    if ($served -contains 'gateway.networking.k8s.io/v1') {
        $kinds += ',gateways.gateway.networking.k8s.io,httproutes.gateway.networking.k8s.io'
    }
    if ($served -contains 'gateway.envoyproxy.io/v1alpha1') {
        $kinds += ',backendtrafficpolicies.gateway.envoyproxy.io,envoyproxies.gateway.envoyproxy.io'
    }
    $found = Invoke-Here @('get', $kinds, '--selector', 'app.kubernetes.io/part-of=carillon', '--output', 'name')
    $left = @($found | Where-Object { $wanted -notcontains $_ })
    if ($left) {
        Write-Output '==> Remove what this overlay does not have'
        Invoke-Here (@('delete') + $left)
    }

    Write-Output ''
    Write-Output 'Carillon runs. Reach it'
    if ($wanted -match '^gateway\.') {
        Write-Output "  through its Gateway, at the address of`n    kubectl --namespace $namespace get gateway carillon"
    }
    else {
        Write-Output "  through the ingress controller, at the address of`n    kubectl --namespace $namespace get ingress"
    }
    Write-Output "  or without it, at http://localhost:8080, by`n    kubectl --namespace $namespace port-forward service/frontend 8080:8080"
    Write-Output "Remove it, its passwords and all its data by`n    kubectl delete namespace $namespace"
    if ($before -eq $after -and -not $pinned) {
        Write-Output ''
        Write-Output "No pod was restarted: all run $Tag already. If $Tag was pushed again, nodes keep the earlier image. Push it under"
        Write-Output 'another tag, or run this where build-and-push-containers.ps1 was run, which keeps digests.'
    }
}
finally {
    Pop-Location
}
