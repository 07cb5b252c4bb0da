// Package manifests renders what k8s/ holds, as `kubectl apply -k` does, into the
// types of Kubernetes.
package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// An Object is any of Kubernetes'.
type Object interface {
	runtime.Object
	meta.Object
}

// Render renders a folder of k8s, such as "overlays/prod", with the named components
// switched on in its kustomization.
func Render(k8s, folder string, components ...string) (_ []Object, err error) {
	if len(components) > 0 {
		with, err := compose(k8s, folder, components)
		if err != nil {
			return nil, fmt.Errorf("manifests: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(with)) }()
		k8s = with
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(k8s, folder))
	if err != nil {
		return nil, fmt.Errorf("manifests: %w", err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		return nil, fmt.Errorf("manifests: %w", err)
	}
	return Decode(text)
}

// compose makes a copy of k8s in which a folder lists components. The caller
// removes it.
func compose(k8s, folder string, components []string) (string, error) {
	with, err := os.MkdirTemp("", "rejoin-k8s-")
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(with, os.DirFS(k8s)); err != nil {
		return "", errors.Join(err, os.RemoveAll(with))
	}
	list := "\ncomponents:\n"
	for _, c := range components {
		list += "  - " + strings.Repeat("../", 1+strings.Count(folder, "/")) + "components/" + c + "\n"
	}
	file := filepath.Join(with, folder, "kustomization.yaml")
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, append(text, list...), 0o600)
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(with))
	}
	return with, nil
}

// Decode reads documents of YAML. An unknown or duplicate field is an error, as is a kind that
// nodes have no use for.
func Decode(text []byte) ([]Object, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, autoscaling.AddToScheme, core.AddToScheme, networking.AddToScheme, policy.AddToScheme, monitoring.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	var objects []Object
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("manifests: %w", err)
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("manifests: %w\n%s", err, document)
		}
		objects = append(objects, object.(Object))
	}
}

// All returns the objects of one type.
func All[T Object](objects []Object) (all []T) {
	for _, o := range objects {
		if o, ok := o.(T); ok {
			all = append(all, o)
		}
	}
	return all
}
