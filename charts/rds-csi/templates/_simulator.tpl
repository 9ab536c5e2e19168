{{/* The node the simulator runs on: given, or where it runs already, or the cluster's first. */}}
{{- define "rds-csi.simulator.node" -}}
{{- $record := lookup "v1" "ConfigMap" .Release.Namespace (printf "%s-cluster" (include "rds-csi.fullname" .)) | default dict -}}
{{- $node := .Values.simulator.nodeName | default (dig "data" "simulatorNode" "" $record) -}}
{{- if not $node -}}
{{- $nodes := lookup "v1" "Node" "" "" | default dict -}}
{{- with (dig "items" list $nodes) -}}{{- $node = (first .).metadata.name -}}{{- end -}}
{{- end -}}
{{- required "simulator.nodeName is missing: Helm could not read the cluster's nodes" $node -}}
{{- end -}}

{{/* That node's IP address. */}}
{{- define "rds-csi.simulator.address" -}}
{{- $address := .Values.simulator.address -}}
{{- if not $address -}}
{{- $node := lookup "v1" "Node" "" (include "rds-csi.simulator.node" .) | default dict -}}
{{- range (dig "status" "addresses" list $node) -}}
{{- if and (eq .type "InternalIP") (not $address) -}}{{- $address = .address -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- required "simulator.address is missing: Helm could not read the address of the simulator's node" $address -}}
{{- end -}}

{{/*
An SSH key pair as a YAML map: the private key in PEM, the public one as OpenSSH writes it. Helm
makes no OpenSSH keys, but certificates: the public key is the 32 bytes that follow the Ed25519
object id in its own certificate (RFC 8410), written as RFC 8709 has it.
*/}}
{{- define "rds-csi.simulator.keyPair" -}}
{{- $private := genPrivateKey "ed25519" -}}
{{- $certificate := genSelfSignedCertWithKey "simulator" (list) (list) 1 $private -}}
{{- $base64 := $certificate.Cert | replace "-----BEGIN CERTIFICATE-----" "" | replace "-----END CERTIFICATE-----" "" | replace "\n" "" -}}
{{- $raw := splitList "\x2b\x65\x70\x03\x21\x00" (b64dec $base64) | last | substr 0 32 -}}
private: {{ $private | quote }}
public: ssh-ed25519 {{ printf "\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20%s" $raw | b64enc }}
{{- end -}}
