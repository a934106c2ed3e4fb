<#
.SYNOPSIS
Builds the three images from the Dockerfile and pushes them to a registry.
.DESCRIPTION
For machines of another kind than this one, set DOCKER_DEFAULT_PLATFORM, for example to linux/amd64:
Docker reads it. The twin of build-and-push-containers.sh.
.PARAMETER DockerRegistryUrl
Where the images go, like registry.example.com/team
.PARAMETER Tag
What this version is called; without it the commit, and then nothing may be uncommitted
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][ValidatePattern('^[^\s:/-][^\s]*$')][string]$DockerRegistryUrl,
    [ValidatePattern('^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$')][string]$Tag
)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

# PowerShell continues after a program that failed, whatever ErrorActionPreference is. This does not.
function Invoke-Program([string]$Program, [string[]]$Arguments) {
    & $Program @Arguments
    if ($LASTEXITCODE -ne 0) { throw "$Program $($Arguments -join ' ') failed with exit code $LASTEXITCODE" }
}

if ($DockerRegistryUrl -like '*://*') { throw 'a registry is named without https://' }
$registry = $DockerRegistryUrl.TrimEnd('/')
Push-Location (Join-Path $PSScriptRoot '..')
try {
    if (-not $Tag) {
        if (Invoke-Program 'git' @('status', '--porcelain')) {
            throw 'there are uncommitted changes, which no commit would name: commit them, or give a -Tag'
        }
        $Tag = Invoke-Program 'git' @('rev-parse', '--short=12', 'HEAD')
    }
    $revision = Invoke-Program 'git' @('rev-parse', 'HEAD')
    # What the registry calls each image by its content: the deploy script takes these digests.
    New-Item '.images' -ItemType Directory -Force | Out-Null
    if (Test-Path ".images/$Tag") { Remove-Item ".images/$Tag" }
    $images = @()
    foreach ($name in 'producer', 'bff', 'frontend') {
        $image = "$registry/${name}:$Tag"
        Write-Output "==> $image"
        Invoke-Program 'docker' @('build', '--target', $name, '--build-arg', "VERSION=$Tag", '--build-arg', "REVISION=$revision", '--tag', $image, '.')
        Invoke-Program 'docker' @('push', $image)
        $digests = Invoke-Program 'docker' @('image', 'inspect', '--format', '{{range .RepoDigests}}{{println .}}{{end}}', $image)
        foreach ($line in $digests) {
            if ($line -and $line.StartsWith("$registry/$name@sha256:")) { $images += "$image@$($line.Split('@')[1])" }
        }
    }
    if ($images.Count -eq 3) {
        Set-Content ".images/$Tag" $images -Encoding ascii
        Write-Output "Their digests are in .images/$Tag."
    }
    Write-Output "Pushed. Next:"
    Write-Output "  scripts/deploy-application.ps1 -DockerRegistryUrl $registry -Tag $Tag"
}
finally {
    Pop-Location
}
