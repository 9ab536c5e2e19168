// Reads rendered manifests from standard input and decodes each object into Kubernetes' own types,
// strictly: an unknown or doubled field is an error. Prints one line for each object that fails,
// and exits with 1 if there was one. Objects of kinds this build does not know are errors too.
//
// The version of the types is that of k8s.io/api in the module file it is built with.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// More types, where a build has them.
var add = []func(*runtime.Scheme) error{
	appsv1.AddToScheme,
	corev1.AddToScheme,
	networkingv1.AddToScheme,
	policyv1.AddToScheme,
	rbacv1.AddToScheme,
	storagev1.AddToScheme,
}

func main() {
	scheme := runtime.NewScheme()
	for _, types := range add {
		if err := types(scheme); err != nil {
			panic(err)
		}
	}
	decoder := json.NewSerializerWithOptions(
		json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	reader := yaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	failed := 0
	for number := 1; ; number++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			_, _, err = decoder.Decode(document, nil, nil)
		}
		if err != nil {
			failed++
			fmt.Printf("object %d: %v\n", number, err)
		}
	}
	if failed > 0 {
		os.Exit(1)
	}
}
