{{/* The prefix of all names: at most 40 characters, so that every suffix fits. */}}
{{- define "rds-csi.fullname" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- $name := printf "%s-%s" .Release.Name $chart -}}
{{- if contains $chart .Release.Name -}}{{- $name = .Release.Name -}}{{- end -}}
{{- default $name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels by which pods are selected. Takes a dict: root, component. */}}
{{- define "rds-csi.selectorLabels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of a pod: no versions, which would restart pods that stay the same. */}}
{{- define "rds-csi.podLabels" -}}
{{ include "rds-csi.selectorLabels" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of an object. Takes a dict: root, component. */}}
{{- define "rds-csi.labels" -}}
{{ include "rds-csi.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Name, labels and annotations of an object. Takes a dict: root, component, name; cluster. */}}
{{- define "rds-csi.metadata" -}}
name: {{ .name | quote }}
{{- if not .cluster }}
namespace: {{ .root.Release.Namespace | quote }}
{{- end }}
labels:
  {{- include "rds-csi.labels" . | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* One of the driver's images. Takes a dict: root, image. */}}
{{- define "rds-csi.image" -}}
{{- $registry := required "image.registry is missing: the registry to which you pushed the images of the Containerfile" .root.Values.image.registry -}}
{{- $tag := default .root.Chart.AppVersion .image.tag -}}
{{ $registry }}/{{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end -}}

{{/* A sidecar's image. Takes a dict: root, image. */}}
{{- define "rds-csi.sidecarImage" -}}
{{ default .root.Values.sidecars.registry .image.registry }}/{{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag }}{{ end }}
{{- end -}}

{{/*
The id of this cluster: what the values say, else what this release used before, else the UID of
kube-system. It stands in the ownership record of every volume, so another one is refused.
*/}}
{{- define "rds-csi.clusterId" -}}
{{- $record := lookup "v1" "ConfigMap" .Release.Namespace (printf "%s-cluster" (include "rds-csi.fullname" .)) | default dict -}}
{{- $used := dig "data" "clusterId" "" $record -}}
{{- $kube := lookup "v1" "Namespace" "" "kube-system" | default dict -}}
{{- $id := .Values.clusterId | default $used | default (dig "metadata" "uid" "" $kube) -}}
{{- if not $id -}}
{{- fail "clusterId is missing: Helm could not read the UID of the namespace kube-system, which is the default. Give any id that no other cluster on the same RDS has, and never change it" -}}
{{- end -}}
{{- if and $used (ne $used $id) -}}
{{- fail (printf "clusterId must not change from %q to %q: the volumes of this release are recorded under the first" $used $id) -}}
{{- end -}}
{{- $id -}}
{{- end -}}

{{/* Where the volumes lie, unless a StorageClass says otherwise. */}}
{{- define "rds-csi.volumePath" -}}
{{- if .Values.simulator.enabled -}}
{{- default "raid10/csi" .Values.rds.volumePath -}}
{{- else -}}
{{- required "rds.volumePath is missing: the directory of the RDS for volumes, like raid10/csi" .Values.rds.volumePath -}}
{{- end -}}
{{- end -}}

{{/* Host and port of the SSH service, and the address of the volumes, as a YAML map. */}}
{{- define "rds-csi.rds" -}}
{{- if .Values.simulator.enabled -}}
{{- $address := include "rds-csi.simulator.address" . -}}
address: {{ $address | quote }}
port: {{ int64 .Values.simulator.port }}
nvmeAddress: {{ $address | quote }}
{{- else -}}
address: {{ required "rds.address is missing: the address of the RDS's SSH service (or simulator.enabled=true to try without an RDS)" .Values.rds.address | quote }}
port: {{ int64 .Values.rds.port }}
nvmeAddress: {{ required "rds.nvmeAddress is missing: the IP address at which nodes reach the volumes" .Values.rds.nvmeAddress | quote }}
{{- end -}}
{{- end -}}

{{/* Whether the controller's sources of keys are given; fails if not. */}}
{{- define "rds-csi.checkKeys" -}}
{{- $rds := .Values.rds -}}
{{- if not .Values.simulator.enabled -}}
{{- if and $rds.privateKey $rds.existingSecret.name -}}
{{- fail "rds.privateKey and rds.existingSecret.name exclude each other" -}}
{{- end -}}
{{- if not (or $rds.privateKey $rds.existingSecret.name) -}}
{{- fail "rds.existingSecret.name is missing: a Secret with the SSH private key of the RouterOS user (or rds.privateKey)" -}}
{{- end -}}
{{- if and $rds.existingSecret.hostKeysKey (not $rds.existingSecret.name) -}}
{{- fail "rds.existingSecret.hostKeysKey needs rds.existingSecret.name" -}}
{{- end -}}
{{- if and $rds.existingSecret.hostKeysKey $rds.hostKeys -}}
{{- fail "rds.hostKeys and rds.existingSecret.hostKeysKey exclude each other" -}}
{{- end -}}
{{- if not (or $rds.hostKeys $rds.existingSecret.hostKeysKey) -}}
{{- fail "rds.hostKeys is missing: without the RDS's public host key anybody on the network could pose as the RDS. On the RDS: /ip/ssh/export-host-key; from here, if you trust the network now: ssh-keyscan" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The least a container can run with. */}}
{{- define "rds-csi.restricted" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Root, to reach the kubelet's sockets, and nothing more. */}}
{{- define "rds-csi.rootWithoutCapabilities" -}}
runAsUser: 0
runAsGroup: 0
runAsNonRoot: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Flags of the driver that both services have. Takes the root. */}}
{{- define "rds-csi.driverArgs" -}}
- --endpoint=/csi/csi.sock
- {{ printf "--cluster-id=%s" (include "rds-csi.clusterId" .) | quote }}
- {{ printf "--driver-name=%s" .Values.driverName | quote }}
- {{ printf "--nqn-prefix=%s" .Values.nqnPrefix | quote }}
- --log-level={{ .Values.logging.level }}
- --log-format={{ .Values.logging.format }}
{{- end -}}

{{/* The driver's health, as its livenessprobe sidecar tells it. Takes a dict: port, host. */}}
{{- define "rds-csi.probes" -}}
# Before it serves, a node looks for orphaned connections, for two minutes at most.
startupProbe:
  httpGet: {path: /healthz, port: {{ .port }}{{ with .host }}, host: {{ . }}{{ end }}}
  periodSeconds: 5
  timeoutSeconds: 6
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: {{ .port }}{{ with .host }}, host: {{ . }}{{ end }}}
  periodSeconds: 30
  timeoutSeconds: 6
  failureThreshold: 5
{{- end -}}

{{/* The livenessprobe sidecar. Takes a dict: root, endpoint, security (a helper's name). */}}
{{- define "rds-csi.livenessProbe" -}}
{{- $values := .root.Values.sidecars -}}
- name: livenessprobe
  image: {{ include "rds-csi.sidecarImage" (dict "root" .root "image" $values.livenessProbe.image) | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --http-endpoint={{ .endpoint }}
    - --probe-timeout=5s
    - --v={{ int64 $values.logLevel }}
    {{- with $values.livenessProbe.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml (default $values.resources $values.livenessProbe.resources) | nindent 4 }}
  securityContext:
    {{- include .security . | nindent 4 }}
  volumeMounts:
    - {name: socket, mountPath: /csi}
{{- end -}}

{{/*
A sidecar of the controller: leader-elected, with a health check of its election. It alone gets
the API token. Takes a dict: root, name, values, port, args; env.
*/}}
{{- define "rds-csi.sidecar" -}}
- name: {{ .name }}
  image: {{ include "rds-csi.sidecarImage" (dict "root" .root "image" .values.image) | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --leader-election
    - {{ printf "--leader-election-namespace=%s" .root.Release.Namespace | quote }}
    - --http-endpoint=:{{ .port }}
    - --timeout={{ .root.Values.sidecars.timeout }}
    - --v={{ int64 .root.Values.sidecars.logLevel }}
    {{- range .args }}
    - {{ . | quote }}
    {{- end }}
    {{- with .values.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .env }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - {name: {{ .portName }}, containerPort: {{ .port }}}
  # It answers nobody before the driver answered it, which may take as long as the driver's start.
  startupProbe:
    httpGet: {path: /healthz/leader-election, port: {{ .portName }}}
    periodSeconds: 5
    timeoutSeconds: 10
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /healthz/leader-election, port: {{ .portName }}}
    periodSeconds: 20
    timeoutSeconds: 10
  resources:
    {{- toYaml (default .root.Values.sidecars.resources .values.resources) | nindent 4 }}
  securityContext:
    {{- include "rds-csi.restricted" . | nindent 4 }}
  volumeMounts:
    - {name: socket, mountPath: /csi}
    - {name: api-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end -}}

{{/* Key of the taint that nodes are born with. */}}
{{- define "rds-csi.startupTaint" -}}
{{ default (printf "%s/agent-not-ready" .Values.driverName) .Values.node.startupTaint.key }}
{{- end -}}

{{/* The volume api-token: what the kubelet would mount into every container of a pod. */}}
{{- define "rds-csi.apiToken" -}}
- name: api-token
  projected:
    defaultMode: 0444
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items:
            - path: namespace
              fieldRef: {fieldPath: metadata.namespace}
{{- end -}}

{{/* A StorageClass parameter as text. Helm reads numbers as floats: 1000000 would be 1e+06. */}}
{{- define "rds-csi.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* Whether the cluster knows an API of the Prometheus operator. Takes a dict: root, kind. */}}
{{- define "rds-csi.knows" -}}
{{- if or .root.Values.metrics.force (.root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind)) -}}true{{- end -}}
{{- end -}}

{{/* Where the controller's keys come from: sources of a projected volume. */}}
{{- define "rds-csi.keySources" -}}
{{- $fullname := include "rds-csi.fullname" . -}}
{{- $secret := .Values.rds.existingSecret -}}
{{- if .Values.simulator.enabled -}}
- secret:
    name: {{ $fullname }}-simulator
    items:
      - {key: id_ed25519, path: id_ed25519}
      - {key: host-keys, path: host-keys}
{{- else -}}
- secret:
    name: {{ default (printf "%s-ssh" $fullname) $secret.name | quote }}
    items:
      - {key: {{ ternary $secret.privateKeyKey "id_ed25519" (not (empty $secret.name)) | quote }}, path: id_ed25519}
      {{- with $secret.hostKeysKey }}
      - {key: {{ . | quote }}, path: host-keys}
      {{- end }}
{{- if .Values.rds.hostKeys }}
- configMap:
    name: {{ $fullname }}-host-keys
    items:
      - {key: host-keys, path: host-keys}
{{- end }}
{{- end -}}
{{- end -}}
