//go:build operators

package main

import (
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
)

func init() {
	add = append(add, monitoringv1.AddToScheme, snapshotv1.AddToScheme)
}
